"""What a run ran on, for `environment.json`."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedssl.config import Experiment

PACKAGES = ("fedssl", "flwr", "ray", "torch", "torchvision", "numpy", "flwr-datasets", "hydra-core")


def describe(experiment: Experiment) -> dict[str, str | int]:
    """Give versions, machine, arithmetic, date and command as a flat mapping."""
    from fedssl.runtime import choose_device, resolve_precision

    device = choose_device(experiment.device)
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "device": str(device),
        "precision": resolve_precision(experiment.precision, device),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["fedssl", *sys.argv[1:]]),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
