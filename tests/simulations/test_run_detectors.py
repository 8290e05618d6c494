"""Runs of detectors: what does not fit is refused before anything is written, and weights from a file are read once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES
from fedssl.data.sources.shapes_synthetic import ShapesSynthetic
from simulations import simulate
from simulations.cli import main
from simulations.compose import compose_experiment

SCENES = "data=shapes_synthetic data.pictures=36 data.test_pictures=4 data.size=64 partition=natural validation=0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            f"method=fedavg model=resnet labels=asis {SCENES}",
            r"^model='resnet': must be one that fits data=shapes_synthetic: a detector \(model=detector\)",
        ),
        (
            f"method=fedsto model=detector labels=none {SCENES} method.warm_up_weights=missing",
            r"^method\.warm_up_weights='/.*/missing': must be `auto`, empty or a safetensors file",
        ),
    ],
)
def test_networks_that_do_not_fit_write_nothing(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate([*words.split(), "clients=3", "engine=inline", f"out={tmp_path / 'run'}"])
    assert list(tmp_path.iterdir()) == []


def test_a_command_shows_how_far_the_pictures_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=ssfl", *SCENES.split(), "data.seed=7", "labels=none", "clients=3", f"out={tmp_path / 'split'}"]
    assert main(["split", *words]) == 0
    shown = capsys.readouterr().err.splitlines()
    assert shown == [f"drawing {part} pictures in their weather 0/{n}" for part, n in (("training", 36), ("test", 4))]
    assert main(["split", *words[:-1], f"out={tmp_path / 'again'}"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data.size=100", "data.size=100: must be a whole number >= 32 and a multiple of 32"),
        ("method.tau1=0.5 method.tau2=0.4", "method.tau2=0.4: must be at least method.tau1=0.5"),
    ],
)
def test_options_are_refused_before_any_picture_is_drawn(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ShapesSynthetic, "read", lambda _: pytest.fail("drawn"))
    given = dict(word.split("=", 1) for word in f"{SCENES} data.seed=8 {words}".split())
    options = [f"{key}={value}" for key, value in given.items()]
    assert main(["run", "method=fedsto", "model=detector", "labels=none", "clients=3", *options]) == 2
    assert capsys.readouterr().err == f"fedssl: {message}\n"


def test_a_detector_is_refused_for_pictures_without_boxes(tmp_path: Path) -> None:
    file = tmp_path / "classes.npz"
    np.savez(file, x_train=np.zeros((40, 64, 64, 3), np.uint8), y_train=np.arange(40) % 2)
    words = [
        "method=fedavg",
        "model=detector",
        "data=npz",
        f"data.path={file}",
        "partition=iid",
        "labels=client_rate",
        "clients=3",
    ]
    with pytest.raises(ConfigError, match=r"^model='detector': must be one that fits data=npz: no detector"):
        simulate([*words, f"out={tmp_path / 'run'}"])
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_resumes_without_its_file_of_first_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    from fedssl.assembly import initial_model
    from fedssl.data.cache import open_dataset
    from fedssl.runtime import choose_device

    monkeypatch.setattr("simulations.run._report", lambda *_: None)
    file = tmp_path / "first.safetensors"
    words = f"method=ssfl model=detector model.width=2 labels=none {SCENES} clients=3 engine=inline method.warm_up=0"
    common = [*words.split(), "method.labeller=none", "method.server_epochs=0", f"method.warm_up_weights={file}"]
    chosen = compose_experiment([*common, "seed=7"])
    dataset = open_dataset(SOURCES.create(chosen.data))
    tensors = initial_model(chosen, dataset, choose_device("cpu")).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    first = simulate([*common, "rounds=1", f"out={tmp_path / 'run'}"]).summary["weights_sha256"]
    file.unlink()
    second = simulate([f"resume={tmp_path / 'run'}", "rounds=2"]).summary
    # Nobody trains.
    assert (second["rounds"], second["weights_sha256"]) == (2, first)
