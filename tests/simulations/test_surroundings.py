"""What the machine lacks is told in one line that names the field, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fedssl import runtime
from fedssl.config import ConfigError
from simulations.cli import main
from simulations.run import simulate

WORDS = "method=fedavg data=digits partition=iid model=mlp model.hidden=8 clients=2 rounds=1 engine=inline"
SMALL = WORDS.split()
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused in one line, with nothing written where it was called; return the line."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def check(*argv: str, field: str) -> str:
        code = main(argv)
        shown = capsys.readouterr().err
        assert code == 2, shown
        assert [line.partition("=")[0] for line in shown.splitlines()] == [f"fedssl: {field}"]
        assert os.listdir(here) == []
        return shown

    return check


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_devices", lambda: ["cpu"])


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("command", [["run", *SMALL], ["run", "-m", *SMALL, "seed=0,1"], ["pretrain", "epochs=1"]])
@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_is_not_here_is_refused(refused: Refused, command: list[str], device: str) -> None:
    assert "must be auto or cpu on this machine" in refused(*command, f"device={device}", field="device")


@pytest.mark.usefixtures("no_gpu")
def test_a_script_is_refused_a_device_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^device='cuda': must be auto or cpu"):
        simulate([*SMALL, "device=cuda", f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_gpu")
def test_a_run_of_another_machine_is_not_resumed_without_its_device(refused: Refused, tmp_path: Path) -> None:
    config = simulate([*SMALL, f"out={tmp_path / 'run'}"]).directory / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "device": "cuda"}))
    before = {path: path.read_bytes() for path in config.parent.iterdir() if path.is_file()}
    assert "must be auto or cpu on this machine" in refused(
        "run", f"resume={config.parent}", "rounds=2", field="device"
    )
    assert {path: path.read_bytes() for path in config.parent.iterdir() if path.is_file()} == before
