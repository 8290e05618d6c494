from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedssl.config import Experiment
from server.watcher import Silence
from simulations import loggers, simulate
from simulations.loggers import Write, scalars

SMALL = "method=fedavg data=digits partition=iid model=mlp model.hidden=8 clients=3 engine=inline rounds=2"


def test_scalars_are_named_by_split() -> None:
    record = {"seconds": 2, "bytes_up": 8, "bytes_down": 9, "train": {"loss": 1}, "test": {"ece": None}, "round": 3}
    assert scalars(record) == {"cost/seconds": 2.0, "cost/bytes_up": 8.0, "cost/bytes_down": 9.0, "train/loss": 1.0}


@pytest.mark.slow
def test_tensorboard_is_written_beside_the_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = simulate([*SMALL.split(), f"out={tmp_path / 'run'}", "logger=tensorboard"])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    accuracy = [event.value for event in events.Scalars("test/accuracy")]
    assert accuracy == pytest.approx(list(result.rounds["test.accuracy"]))
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_is_written_beside_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = simulate([*SMALL.split(), f"out={tmp_path / 'run'}", "logger=mlflow"])
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}")
    group = client.get_experiment_by_name("fedssl")
    (run,) = client.search_runs([group.experiment_id])
    history = client.get_metric_history(run.info.run_id, "test/accuracy")
    assert [item.value for item in history] == pytest.approx(list(result.rounds["test.accuracy"]))
    assert (run.info.status, run.data.params["method.name"]) == ("FINISHED", "fedavg")


class Notes(Silence):
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def round(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def warn(self, line: str) -> None:
        self.lines.append(line)


@contextmanager
def opened(experiment: Experiment, warn: Callable[[str], None]) -> Iterator[Write]:
    def gone(*_: object) -> None:
        raise ConnectionError("server gone")

    try:
        yield gone
    finally:
        loggers._close(gone, warn)


def test_a_logger_that_fails_to_close_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "_mlflow", opened)
    notes = Notes()
    with loggers.logging_to("mlflow", Experiment(), notes):
        pass
    with pytest.raises(ValueError, match="the run's own"), loggers.logging_to("mlflow", Experiment(), notes):
        raise ValueError("the run's own")
    assert notes.lines == ["logger not closed: ConnectionError: server gone"] * 2


@pytest.mark.slow
def test_tensorboard_that_cannot_be_closed_leaves_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    close = SummaryWriter.close

    def full(self: SummaryWriter) -> None:
        close(self)
        raise OSError("disk full")

    monkeypatch.setattr(SummaryWriter, "close", full)
    notes = Notes()
    result = simulate([*SMALL.split(), f"out={tmp_path / 'run'}", "logger=tensorboard"], notes)
    assert result.summary["status"] == "done"
    assert notes.lines == ["logger not closed: OSError: disk full"]


def test_a_round_is_shown_even_if_it_cannot_be_written() -> None:
    def gone(*_: object) -> None:
        raise ConnectionError("server gone")

    notes = Notes()
    with pytest.raises(ConnectionError):
        loggers.Scribe(notes, gone).round({"round": 1})
    assert notes.records == [{"round": 1}]
