"""Tests of simulations.multirun: many runs, of which some fail or never began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fedssl.config import Experiment
from server.strategy import RoundFailed
from simulations import multirun
from simulations.cli import main
from simulations.run import Result, execute

pytestmark = pytest.mark.slow
SMALL = "method=fixmatch data=digits partition=iid labels=client_rate model=mlp model.hidden=8 clients=3 engine=inline"
ONCE = [*SMALL.split(), "rounds=1"]


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> list[str]:
    """Let the run of that folder fail once; give the folders that were run."""
    ran: list[str] = []

    def run(experiment: Experiment, *given: object, resume: bool) -> Result:
        ran.append(Path(experiment.out).name)
        if ran.count(name) == 1 and ran[-1] == name:
            raise error
        return execute(experiment, *given, resume=resume)  # type: ignore[arg-type]

    monkeypatch.setattr(multirun, "execute", run)
    return ran


def test_many_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "many"
    assert main(["run", "-m", *ONCE, f"out={out}", "seed=0,1"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["000", "001", "comparison"]
    assert [Result(out / name).summary["seed"] for name in ("000", "001")] == [0, 1]
    assert (out / "comparison" / "report.html").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert f"run 2/2: {out / '001'}\n" in shown
    assert f"comparison: {out / 'comparison' / 'report.html'}\n" in shown
    assert main(["report", str(out / "000"), str(out / "001"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "report.html").is_file()


def test_a_run_that_fails_leaves_the_others_alone_and_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = fail_at(monkeypatch, "001", RoundFailed("round 1: nobody answered"))
    assert main(["run", "-m", *ONCE, f"out={tmp_path / 'many'}", "seed=0,1,2"]) == 1
    told = capsys.readouterr()
    assert told.err == (
        "fedssl: round 1: nobody answered\n"
        f"fedssl: failed: 001 of 3 runs; to go on: fedssl run resume={tmp_path / 'many'}\n"
    )
    assert "2 runs of one setting" in (tmp_path / "many" / "comparison" / "report.html").read_text()
    assert main(["run", f"resume={tmp_path / 'many'}"]) == 0
    assert ran == ["000", "001", "002", "001"]
    assert "3 runs of one setting" in (tmp_path / "many" / "comparison" / "report.html").read_text()
    assert Result(tmp_path / "many" / "001").summary["seed"] == 1


def test_runs_that_never_began_are_run_as_they_were_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "many"
    ran = fail_at(monkeypatch, "000", KeyboardInterrupt())
    assert main(["run", "-m", *ONCE, f"out={out}", "method.lr=0.01,0.02"]) == 130
    assert f"stopped in run 1 of 2; to go on: fedssl run resume={out}\n" in capsys.readouterr().out
    planned = [yaml.safe_load((out / name / "config.yaml").read_text()) for name in ("000", "001")]
    assert [one["method"]["lr"] for one in planned] == [0.01, 0.02]
    assert main(["run", f"resume={out}", "rounds=2"]) == 0
    assert ran == ["000", "000", "001"]
    assert [json.loads((out / name / "summary.json").read_text())["rounds"] for name in ("000", "001")] == [2, 2]
    assert main(["run", f"resume={out}", "method=fedavg"]) == 2
    assert "method='fedavg': must be left out" in capsys.readouterr().err
