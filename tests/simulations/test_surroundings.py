"""What the machine lacks is told in one line that names the field, before anything is written."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedssl import runtime
from fedssl.config import ConfigError
from fedssl.report.compare import compare
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


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a container's user, whom no user database knows."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("FEDSSL_CACHE", raising=False)


COMMANDS = [["run", *SMALL], ["run", "-m", *SMALL, "seed=0,1"], ["split", "data=digits"], ["pretrain", "epochs=1"]]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("no_home")
def test_a_cache_is_asked_for_where_there_is_no_home(refused: Refused, command: list[str]) -> None:
    assert "must be the path of a folder to keep decoded data in" in refused(*command, field="FEDSSL_CACHE")


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize(("home", "cache"), [("", ""), (None, "~/x"), ("/root", "~no-such-user/x")])
def test_a_cache_in_a_home_that_nobody_knows_is_refused(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, home: str | None, cache: str
) -> None:
    monkeypatch.setenv("FEDSSL_CACHE", cache)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert "must be" in refused("split", "data=digits", field="FEDSSL_CACHE")


@pytest.mark.usefixtures("no_home")
def test_without_a_home_a_given_cache_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path / "cache"))
    assert (simulate([*SMALL, f"out={tmp_path / 'run'}"]).directory / "report.html").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cache_that_is_no_folder_is_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path / "file" / "cache"))
    assert "must be a folder that can be written to" in refused(*command, field="FEDSSL_CACHE")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_under_the_cache_is_told(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", full)
    assert "(No space left on device)" in refused(*command, field="FEDSSL_CACHE")
    assert os.listdir(tmp_path / "cache") == []


LONG = "x" * 300
LONG_NAMES = [
    (["run", *SMALL, f"out={LONG}"], "out"),
    (["run", f"resume={LONG}"], "resume"),
    (["run", *SMALL, f"method_file={LONG}"], "method_file"),
    (["run", "data=npz", f"data.path={LONG}"], "data.path"),
    (["split", "data=digits", f"out={LONG}"], "out"),
    (["pretrain", f"out={LONG}"], "out"),
    (["report", "a", "b", "--out", LONG], "--out"),
]


@pytest.mark.parametrize(("command", "field"), LONG_NAMES)
def test_a_name_that_no_file_can_have_is_refused(refused: Refused, command: list[str], field: str) -> None:
    assert "(File name too long)" in refused(*command, field=field)


def test_a_current_folder_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in (["run", *SMALL], ["split", "data=digits"], ["report", "a", "b"], ["pretrain", "epochs=1"]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith("fedssl: current folder=")


def test_predictions_that_cannot_be_written_are_told(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulate([*SMALL, f"out={tmp_path / 'run'}"]).directory
    np.savez(tmp_path / "new.npz", x=np.arange(192, dtype=np.uint8).reshape(3, 8, 8))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "(No space left on device)" in refused("predict", str(run), f"--data={tmp_path / 'new.npz'}", field="--out")


def test_a_run_in_a_folder_whose_name_is_no_utf_8_is_a_run_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9")
    result = simulate([*SMALL, f"out={name}"])
    assert (result.directory / "report.html").is_file()
    assert len(result.clients) == 2
    assert simulate([f"resume={name}", "rounds=2"]).summary["rounds"] == 2
    other = simulate([*SMALL, "seed=1", "out=other"])
    assert compare([result.directory, other.directory], Path(name + "-compared")).is_file()
