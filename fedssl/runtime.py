"""How models run here: device, arithmetic, threads."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager

import torch


def choose_device(name: str) -> torch.device:
    """Give the device; `auto` takes cuda, then mps, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_fast_bf16() -> bool:
    """Say whether this CPU multiplies bfloat16 in hardware; read from its features, never timed."""
    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX512"):
        return False
    try:
        with open("/proc/cpuinfo") as file:
            return "avx512_bf16" in file.read(20000)
    except OSError:
        return False


def resolve_precision(name: str, device: torch.device) -> str:
    """Turn `auto` into fp32 or bf16 for this device."""
    if name != "auto":
        return name
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_fast_bf16()
    return "bf16" if fast else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Give the context in which models run at this precision."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def one_thread() -> None:
    """Use one thread in this process: the order of sums, and so the bits, then never depend on the cores."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
