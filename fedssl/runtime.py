"""How models run here: device, arithmetic, threads."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch

from fedssl.config import ConfigError

_PRECISION = "precision"
_entered: list[AbstractContextManager[object] | None] = []
"""Contexts that modules which run now have entered, innermost last; None where one was in force already."""


def choose_device(name: str) -> torch.device:
    """Return the device; `auto` takes cuda, then mps, then the CPU.

    Raises ConfigError for a device that is not here, or that its driver announces and no program can use.
    """
    found = _devices()
    chosen = found[0] if name == "auto" else name
    if chosen not in found:
        reason = f"torch {torch.__version__} finds no {chosen} device"
        hint = " (see nvidia-smi and CUDA_VISIBLE_DEVICES)" if chosen == "cuda" else ""
        raise ConfigError("device", name, f"auto or {' or '.join(found)} on this machine: {reason}{hint}")
    if failure := _failure(chosen):
        raise ConfigError("device", name, f"cpu on this machine, where {chosen} cannot be used ({failure})")
    return torch.device(chosen)


def _devices() -> list[str]:
    """Return the kinds of devices that this machine announces, the fastest first."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name in here if here[name]]


@cache
def _failure(name: str) -> str:
    """Return why a first tensor cannot be made on a device, in one line; empty if it can."""
    try:
        torch.zeros(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split("\n", 1)[0][:120] or type(error).__name__
    return ""


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
    """Return the context for forward passes at this precision.

    No optimiser step may lie inside: autocast keeps its cast copies of the weights until the outermost context ends.
    """
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def use_precision(model: torch.nn.Module, precision: str) -> None:
    """Let the forward passes of a network and of its direct parts, also of their copies, run at this precision.

    Whatever is called from outside opens its own context and returns float32, so that weights are cast anew in each
    pass, and losses and comparisons outside the network are made in float32.
    """
    for module in (model, *model.children()):
        before = precision_of(module)
        setattr(module, _PRECISION, precision)
        if precision == "bf16" != before:
            module.register_forward_pre_hook(_enter)
            module.register_forward_hook(_leave, always_call=True)


def precision_of(model: torch.nn.Module) -> str:
    """Return the precision that `use_precision` chose; fp32 if it chose none."""
    return str(getattr(model, _PRECISION, "fp32"))


def _enter(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
    device = next((tensor.device for tensor in inputs if isinstance(tensor, torch.Tensor)), torch.device("cpu"))
    inside = precision_of(module) == "fp32" or torch.is_autocast_enabled(device.type)
    _entered.append(None if inside else autocast(precision_of(module), device))
    if (context := _entered[-1]) is not None:
        context.__enter__()


def _leave(module: torch.nn.Module, inputs: tuple[Any, ...], outputs: Any) -> Any:
    del module, inputs
    context = _entered.pop()
    if context is None:
        return outputs
    context.__exit__(None, None, None)
    return as_float32(outputs)


def as_float32(outputs: Any) -> Any:
    """Return the same tuples, named tuples, lists and tensors, with bfloat16 tensors as float32."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float() if outputs.dtype == torch.bfloat16 else outputs
    if isinstance(outputs, (list, tuple)):
        parts = [as_float32(part) for part in outputs]
        return type(outputs)(*parts) if hasattr(outputs, "_fields") else type(outputs)(parts)
    return outputs


def one_thread() -> None:
    """Use one thread in this process: the order of sums, and so the bits, then never depend on the cores."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
