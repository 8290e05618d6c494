"""Golden runs: three rounds of every method, compared with stored metrics and hashes; `--update-golden` stores them.

Processors round differently, and steps of a high learning rate make much of it: `ONEDNN_MAX_CPU_ISA=AVX2` shows how
much. So rates are low where models are trained by their own pseudo-labels. Metrics are compared within a tolerance on
any machine; `hashes.json` holds SHA-256s by type of machine, and on a machine of a stored type not a bit may differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys

from fedssl.methods.base import METHODS
from server.summary import weights_sha256

FOLDER = Path(__file__).parent
NAMES = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("fedssl.methods.")]
BARELY_WARM = {"lr": 1e-4, "warm_up": 2, "warm_up_weights": "", "tau1": 0.0, "tau2": 0.004, "nms_score": 0.001}
"""After so few epochs nothing scores high."""
OPTIONS: dict[str, dict[str, Any]] = {
    # A few rounds make no model sure: at 0.95 no pseudo-label would be kept.
    "fixmatch": {"lr": 1e-4, "threshold": 0.3, "batch_size": 8, "ratio": 2, "epochs": 2},
    "fedsto": {**BARELY_WARM, "selective_rounds": 1},
    # All terms from the second round on, and pseudo-labels among them.
    "fedossl": {"lr": 3e-3, "batch_size": 16, "epochs": 2, "warmup": "off", "centroid_threshold": 0.3},
    "orca": {"batch_size": 16, "epochs": 2},
    "pfedhn": {"hidden": 8, "steps": 5},
    "semipfl": {"hidden": 8, "epochs": 2, "base_epochs": 2, "tau": 0.12},
    "server_only": {"epochs": 2, "batch_size": 32},
    "ssfl": BARELY_WARM,
}
OPEN_WORLD: dict[str, Any] = {
    "model": {"name": "resnet", "width": 4, "head": "cosine"},
    "partition": {"name": "open_world"},
    "labels": {"name": "client_rate", "rate": 0.5},
    "calibration": {"name": "method"},
}
CLOSED: dict[str, Any] = {
    "model": {"name": "resnet", "width": 4},
    "partition": {"name": "dirichlet", "alpha": 0.5},
    "labels": {"name": "total_count", "count": 10},
}
SENSING: dict[str, Any] = {
    "data": {"name": "imu_synthetic", "users": 4, "server_subjects": 3, "windows": 10},
    "model": {"name": "autoencoder", "sizes": [16, 8], "hidden": 8},
    "partition": {"name": "natural"},
    "labels": {"name": "client_rate", "rate": 0.2},
    "personalization": {"name": "method"},
}
SCENES: dict[str, Any] = {
    "data": {"name": "shapes_synthetic", "size": 64, "pictures": 36, "test_pictures": 4},
    "model": {"name": "detector", "width": 4},
    "partition": {"name": "natural"},
    "labels": {"name": "none"},
    "clients": 3,
    "validation": 0.0,
}
DETECTORS = ("fedsto", "ssfl")
AT_SERVER = ("autoencoder", "semipfl", "server_only")
"""Methods whose server has labels of its own."""
ROUNDING = 1e-4
FLIPPED = {"fixmatch": 0.05}
"""Absolute differences from the second round on where some sample lies at the threshold, to the last bits."""
PARTS = ("train", "test", "validation")
HASHES = FOLDER / "hashes.json"
ISA_FLAGS = ("avx512_bf16", "avx512_fp16", "amx_tile")
"""Flags by which oneDNN chooses kernels, beyond what torch's CPU capability says."""


def setting(name: str) -> dict[str, Any]:
    """Give the data, model and split that a method is tried with."""
    if METHODS.get(name).open_world:
        return OPEN_WORLD
    return SCENES if name in DETECTORS else SENSING if name in AT_SERVER else CLOSED


def processor() -> str:
    """Return vendor, family and model, by which MKL and OpenBLAS choose kernels, and the flags of ISA_FLAGS."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.machine()
    lines = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags", "").split()
    known = [facts.get(name, platform.machine()) for name in ("vendor_id", "cpu family", "model")]
    return " ".join([*known, *(flag for flag in ISA_FLAGS if flag in flags)])


def machine() -> str:
    """Return what decides the last bits: the key of this machine in hashes.json."""
    versions = [f"{module.__name__} {module.__version__.split('+')[0]}" for module in (torch, np)]
    limits = [f"{name}={os.environ[name]}" for name in ("ONEDNN_MAX_CPU_ISA", "MKL_CBWR") if os.environ.get(name)]
    return ", ".join([processor(), torch.backends.cpu.get_cpu_capability(), *versions, *limits])


def read_hashes() -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(HASHES.read_text()) if HASHES.exists() else {}


def store_hashes(name: str, hashes: Mapping[str, str]) -> None:
    """Replace the hashes of one method on this type of machine; keep all others."""
    stored = read_hashes()
    stored.setdefault(machine(), {})[name] = dict(hashes)
    HASHES.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")


def metrics_sha256(rounds: list[dict[str, Any]]) -> str:
    """Return the SHA-256 of the records, whose floats JSON writes exactly."""
    return hashlib.sha256(json.dumps(rounds, sort_keys=True).encode()).hexdigest()


def differing(hashes: Mapping[str, str], stored: Mapping[str, str]) -> list[str]:
    """Return the names whose hashes are not the stored ones."""
    return sorted(name for name in {*hashes, *stored} if hashes.get(name) != stored.get(name))


def golden_run(name: str, directory: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Run the method; return the scores of its rounds, and the hashes of weights, memories and scores."""
    chosen = toys.experiment(
        method={"name": name, **OPTIONS.get(name, {})},
        **setting(name),
    )
    toys.run(chosen, directory)
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rounds = [{part: record[part] for part in (*PARTS, "bytes_up", "bytes_down")} for record in records]
    summary = json.loads((directory / "summary.json").read_text())
    hashes = {key: summary[key] for key in ("weights_sha256", "memory_sha256")}
    return rounds, {**hashes, "metrics_sha256": metrics_sha256(rounds)}


@pytest.mark.parametrize("name", NAMES)
def test_a_method_gives_its_stored_metrics_and_bits(name: str, tmp_path: Path, request: pytest.FixtureRequest):
    (found, hashes), path = golden_run(name, tmp_path), FOLDER / f"{name}.json"
    if request.config.getoption("--update-golden"):
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        store_hashes(name, hashes)
        pytest.skip(f"stored {path.name} and its hashes")
    stored = json.loads(path.read_text())
    assert len(found) == len(stored) == 3
    for number, (new, old) in enumerate(zip(found, stored, strict=True), 1):
        assert (new["bytes_up"], new["bytes_down"]) == (old["bytes_up"], old["bytes_down"])
        allowed = FLIPPED.get(name, ROUNDING) if number > 1 else ROUNDING
        for part in PARTS:
            assert new[part] == pytest.approx(old[part], rel=ROUNDING, abs=allowed), f"{name}, round {number}, {part}"
    if machine() in read_hashes():
        assert differing(hashes, read_hashes()[machine()].get(name, {})) == [], f"{name}: within tolerance, other bits"


def test_this_type_of_machine_has_stored_hashes():
    if machine() not in read_hashes():
        pytest.skip(f"no hashes of `{machine()}`: metrics were compared within tolerance (--update-golden adds them)")
    assert sorted(read_hashes()[machine()]) == NAMES


def test_hashes_see_the_last_bit():
    server = toys.begun(toys.experiment()).finished
    name, tensor = next((k, t) for k, t in server.model.items() if t.is_floating_point())
    moved = tensor.clone()
    moved.view(-1)[-1] = torch.nextafter(moved.view(-1)[-1], torch.tensor(torch.inf))
    rounds = [{"train": {"loss": 2.3}, "bytes_up": 4}]
    nudged = [{"train": {"loss": float(np.nextafter(2.3, 3.0))}, "bytes_up": 4}]
    stored = {"weights_sha256": weights_sha256(server), "metrics_sha256": metrics_sha256(rounds)}
    other = replace(server, model={**server.model, name: moved})
    assert differing(stored, dict(stored)) == []
    assert differing({**stored, "weights_sha256": weights_sha256(other)}, stored) == ["weights_sha256"]
    assert differing({**stored, "metrics_sha256": metrics_sha256(nudged)}, stored) == ["metrics_sha256"]
    assert differing(stored, {}) == ["metrics_sha256", "weights_sha256"]


def test_storing_hashes_keeps_those_of_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "HASHES", tmp_path / "hashes.json")
    HASHES.write_text(json.dumps({"another": {"fedavg": {"weights_sha256": "1"}}}))
    store_hashes("fedavg", {"weights_sha256": "2"})
    store_hashes("fedavg", {"weights_sha256": "3"})
    assert read_hashes() == {
        "another": {"fedavg": {"weights_sha256": "1"}},
        machine(): {"fedavg": {"weights_sha256": "3"}},
    }


def test_no_golden_run_is_left_of_a_method_that_is_gone():
    assert sorted(path.stem for path in FOLDER.glob("*.json") if path != HASHES) == NAMES
    assert {name for methods in read_hashes().values() for name in methods} <= set(NAMES)
