"""Tests that a run which never began leaves nothing, and one that began all it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import toys

from fedssl.config import Experiment
from simulations import unbegun
from simulations.engine.start import EngineError
from simulations.run import execute, simulate


def end(run: Path, error: BaseException, *written: str) -> None:
    """Make a run directory, write files into it, and end the run."""
    before = unbegun.standing(str(run))
    run.mkdir(parents=True, exist_ok=True)
    with unbegun.nothing_left(run, before):
        for name in written:
            (run / name).write_text("" if name in ("metrics.jsonl", "split.npz") else "{}")
        raise error


def test_a_failure_before_the_first_round_leaves_neither_run_nor_parents(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        end(tmp_path / "a" / "b" / "run", RuntimeError(), "config.yaml", "summary.json", "metrics.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_run_without_out_leaves_no_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("simulations.environment.describe", lambda _: 1 / 0)
    words = [*toys.small("method=fedavg", "model=mlp"), "engine=inline"]
    with pytest.raises(ZeroDivisionError):
        simulate(words)
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").mkdir()
    with pytest.raises(ZeroDivisionError):
        simulate(words)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_what_the_user_has_in_the_folder_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(RuntimeError):
        end(run, RuntimeError(), "config.yaml", "notes.txt")
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_a_run_whose_first_round_failed_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        end(tmp_path / "run", RuntimeError(), "config.yaml", "split.npz")
    assert (tmp_path / "run" / "config.yaml").exists()


def test_an_engine_that_breaks_down_in_the_first_round_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        end(tmp_path / "run", EngineError(), "config.yaml", "split.npz", "metrics.jsonl")
    assert not list(tmp_path.iterdir())


def test_an_engine_that_breaks_down_later_leaves_the_rounds(tmp_path: Path) -> None:
    def later() -> None:
        with unbegun.nothing_left(tmp_path, {tmp_path}):
            (tmp_path / "metrics.jsonl").write_text("{}")
            raise EngineError

    with pytest.raises(EngineError):
        later()
    assert (tmp_path / "metrics.jsonl").exists()


def test_ctrl_c_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        end(tmp_path / "run", KeyboardInterrupt(), "config.yaml")
    assert (tmp_path / "run" / "config.yaml").exists()


def failing(what: str) -> str:
    return {
        "method": "fedssl.methods.fedavg.FedAvg.init_server",
        "logger": "torch.utils.tensorboard.SummaryWriter",
        "description": "simulations.environment.describe",
        "server": "server.app.Run.__init__",
    }[what]


@pytest.mark.parametrize("what", ["method", "logger", "description", "server"])
def test_the_same_command_works_after_the_cause_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    words = [*toys.small("method=fedavg", "rounds=1", "model=mlp"), "engine=inline", f"out={tmp_path / 'run'}"]
    words.append("logger=tensorboard")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(failing(what), fail)
        with pytest.raises(RuntimeError, match="not today"):
            simulate(words)
    assert not list(tmp_path.iterdir())
    assert simulate(words).summary["status"] == "done"


def test_an_engine_that_cannot_start_leaves_the_experiment_unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cpus: int, address: str) -> bool:
        raise EngineError("Ray could not start: no")

    monkeypatch.setattr("simulations.engine.start.start_ray", fail)
    chosen: Experiment = toys.experiment(
        engine={"name": "ray", "workers": 1}, out=str(tmp_path / "run"), method={"name": "fedavg"}
    )
    with pytest.raises(EngineError):
        execute(chosen)
    assert not list(tmp_path.iterdir())
