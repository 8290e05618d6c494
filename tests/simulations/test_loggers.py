from __future__ import annotations

from pathlib import Path

import pytest

from simulations import simulate
from simulations.loggers import scalars

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
