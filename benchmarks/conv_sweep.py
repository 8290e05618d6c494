"""Find convolutions that end the process or give wrong gradients: probes in children, against float64.

    python benchmarks/conv_sweep.py [--ours] [--isa AVX2] [--threads 2] [--kernel 1 3] [--sides 28 64] ...

Every probe is forward and backward in channels_last. `--ours` puts a residual block's shortcut in place of torch's
convolution. A line for each probe that failed, with its signal or error; the exit code is 1 if there was one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
from typing import NamedTuple

import torch
from torch import nn

from fedssl.models.networks.resnet import BasicBlock

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}


class Probe(NamedTuple):
    """One convolution: a square image of `side` pixels, no groups, padding of half the kernel."""

    channels_in: int
    channels_out: int
    side: int
    batch: int
    stride: int = 2
    kernel: int = 1


def sweep(probes: list[Probe], *, ours: bool, threads: int = 1, isa: str = "", dtype: str = "float32") -> list[str]:
    """Return a line for each probe that died or was wrong; children go on behind a dead one."""
    environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {}), "OMP_NUM_THREADS": str(threads)}
    found: list[str] = []
    while probes:
        task = json.dumps({"probes": probes, "ours": ours, "threads": threads, "dtype": dtype})
        command = [sys.executable, __file__, "--child"]
        done = subprocess.run(command, input=task, env=environment, capture_output=True, text=True)
        *errors, last = done.stdout.splitlines() or [""]
        found += [line for line in errors if not line.isdigit()]
        if done.returncode == 0:
            break
        if done.returncode > 0 or not last.isdigit():
            raise RuntimeError(f"the child could not start:\n{done.stderr}")
        found.append(f"{probes[int(last)]}: {signal.Signals(-done.returncode).name} {done.stderr.strip()[-80:]}")
        probes = probes[int(last) + 1 :]
    return found


def child(task: dict[str, object]) -> None:
    """Print each probe's number before it, and what was wrong behind it."""
    torch.set_num_threads(task["threads"])
    for number, fields in enumerate(task["probes"]):
        print(number, flush=True)
        probe = Probe(*fields)
        error = worst(probe, ours=task["ours"], dtype=task["dtype"])
        if not error < TOLERANCE[task["dtype"]]:
            print(f"{probe}: relative error {error:.2g}", flush=True)
    print("end")


def worst(probe: Probe, *, ours: bool, dtype: str) -> float:
    """Return the largest error of output and gradients, relative to the largest value of each."""
    generator = torch.Generator().manual_seed(0)
    convs = [_convolution(probe, ours=ours), _convolution(probe, ours=False)]
    weight = torch.randn(convs[0].weight.shape, generator=generator).to(getattr(torch, dtype))
    x = torch.randn(probe.batch, probe.channels_in, probe.side, probe.side, generator=generator).to(weight.dtype)
    forms = [(weight.dtype, torch.channels_last), (torch.float64, torch.contiguous_format)]
    made = []
    for conv, (kind, layout) in zip(convs, forms, strict=True):
        conv.to(dtype=kind, memory_format=layout).load_state_dict({"weight": weight.to(kind)})
        image = x.to(kind, memory_format=layout, copy=True).requires_grad_()
        y = conv(image)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(weight.dtype).to(y))
        made.append([part.detach().double() for part in (y, image.grad, conv.weight.grad)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*made, strict=True))


def _convolution(probe: Probe, *, ours: bool) -> nn.Conv2d:
    if ours:
        return BasicBlock(probe.channels_in, probe.channels_out, probe.stride, "batch").shortcut[0]
    size = (probe.channels_in, probe.channels_out, probe.kernel, probe.stride, probe.kernel // 2)
    return nn.Conv2d(*size, bias=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--isa", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    lists = {
        "channels_in": [1, 3, 4, 7, 8, 9, 12, 15, 16, 17, 24, 32, 64],
        "channels_out": [4, 8, 16, 17, 33, 64],
        "sides": [8, 14, 28, 32, 33, 48, 56, 64, 80, 96],
        "batch": [1, 3, 10],
        "stride": [2],
        "kernel": [1],
    }
    for name, values in lists.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, nargs="+", default=values)
    options = parser.parse_args()
    probes = list(itertools.starmap(Probe, itertools.product(*(getattr(options, name) for name in lists))))
    found = sweep(probes, ours=options.ours, threads=options.threads, isa=options.isa, dtype=options.dtype)
    print(f"torch {torch.__version__}, {len(probes)} probes, {len(found)} failed", *found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        child(json.load(sys.stdin))
    else:
        sys.exit(main())
