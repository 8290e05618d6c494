"""Every command that decodes data says once, on standard error, what is hardly meant; a report keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from simulations.cli import main

WARNING = "2 of 6 classes (2, 4) have no training sample"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Return the overrides for a file whose labels have gaps."""
    x = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    y = np.array([0, 1, 3, 5])[np.arange(200) % 4]
    np.savez(tmp_path / "gaps.npz", x_train=x, y_train=y, x_test=255 - x[:40], y_test=y[:40])
    return f"data=npz data.path={tmp_path / 'gaps.npz'} partition=iid clients=2"


def test_a_run_warns_once_and_keeps_it(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = f"run method=fedavg model=mlp model.hidden=8 rounds=1 engine=inline labels=asis {data} out={out}"
    assert main(words.split()) == 0
    shown = capsys.readouterr()
    assert shown.err.count(f"warning: {WARNING}\n") == 1
    assert "warning" not in shown.out
    assert json.loads((out / "summary.json").read_text())["warnings"] == [WARNING]
    assert WARNING in (out / "report.html").read_text()
    np.savez(tmp_path / "new.npz", x=np.zeros((3, 8, 8), np.uint8))
    assert main(["predict", str(out), f"--data={tmp_path / 'new.npz'}", f"--out={tmp_path / 'new.csv'}"]) == 0
    assert capsys.readouterr().err == (
        "warning: all 3 new images looked at are the same; were they floats in 0..1, cast to uint8?\n"
    )


def test_a_split_warns(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", *data.split(), "labels=asis", f"out={tmp_path / 'split'}"]) == 0
    assert capsys.readouterr().err.count(f"warning: {WARNING}\n") == 1


def test_pre_training_warns(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "weights.safetensors"
    words = f"pretrain {data} model=resnet model.width=2 epochs=1 batch_size=64 score_every=0 threads=1 out={out}"
    assert main(words.split()) == 0
    assert capsys.readouterr().err.count(f"warning: {WARNING}\n") == 1
