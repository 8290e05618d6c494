"""Loggers beside the run directory's files: watchers that also write every number of a round elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.config import Experiment, to_json

if TYPE_CHECKING:
    from server.watcher import Watcher

Write = Callable[[dict[str, float], int], None]
Warn = Callable[[str], None]
SPLITS = ("train", "validation", "test")
COSTS = ("seconds", "bytes_up", "bytes_down")
MAX_PARAM = 250


class Scribe:
    """A watcher that writes scalars, and hands everything on to another watcher."""

    def __init__(self, watcher: Watcher, write: Write) -> None:
        self.watcher = watcher
        self.write = write

    def begin(self, experiment: Experiment, first_round: int) -> None:
        """Hand on."""
        self.watcher.begin(experiment, first_round)

    def stage(self, name: str, done: int, total: int) -> None:
        """Hand on."""
        self.watcher.stage(name, done, total)

    def client(self, client_id: int) -> None:
        """Hand on."""
        self.watcher.client(client_id)

    def round(self, record: dict[str, Any]) -> None:
        """Write the round's numbers, and hand on even if that fails."""
        try:
            self.write(scalars(record), int(record["round"]))
        finally:
            self.watcher.round(record)

    def note(self, line: str) -> None:
        """Hand on."""
        self.watcher.note(line)

    def warn(self, line: str) -> None:
        """Hand on."""
        self.watcher.warn(line)


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """Give the numbers of a round by name: `test/accuracy`, `train/loss`, `cost/seconds` and the like."""
    named = {f"cost/{name}": record.get(name) for name in COSTS}
    for split in SPLITS:
        named.update({f"{split}/{name}": value for name, value in (record.get(split) or {}).items()})
    return {name: float(value) for name, value in named.items() if value is not None}


@contextmanager
def logging_to(name: str, experiment: Experiment, watcher: Watcher) -> Iterator[Watcher]:
    """Give a watcher that also writes to `tensorboard` or `mlflow`, in the run directory."""
    opened = _tensorboard if name == "tensorboard" else _mlflow
    with opened(experiment, watcher.warn) as write:
        yield Scribe(watcher, write)


def _close(close: Callable[[], object], warn: Warn) -> None:
    """Close a logger; one that fails, such as a server gone, neither fails the run nor hides its error."""
    try:
        close()
    except Exception as error:
        warn(f"logger not closed: {type(error).__name__}: {error}")


@contextmanager
def _tensorboard(experiment: Experiment, warn: Warn) -> Iterator[Write]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(Path(experiment.out) / "tensorboard")  # type: ignore[no-untyped-call]
    writer.add_text("experiment", to_json(experiment))

    def write(values: dict[str, float], round_: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, round_)
        writer.flush()

    try:
        yield write
    finally:
        _close(writer.close, warn)


@contextmanager
def _mlflow(experiment: Experiment, warn: Warn) -> Iterator[Write]:
    """Write to the server that MLFLOW_TRACKING_URI names, else to a database in the run directory."""
    from mlflow.tracking import MlflowClient

    folder = (Path(experiment.out) / "mlflow").absolute()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name("fedssl")
    group = found.experiment_id if found else client.create_experiment("fedssl", artifact_location=folder.as_uri())
    run = client.create_run(group, run_name=Path(experiment.out).name).info.run_id
    for key, value in _flat(experiment).items():
        client.log_param(run, key, value)

    def write(values: dict[str, float], round_: int) -> None:
        for key, value in values.items():
            client.log_metric(run, key, value, step=round_)

    status = "FAILED"
    try:
        yield write
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        _close(lambda: client.set_terminated(run, status), warn)


def _flat(experiment: Experiment) -> dict[str, str]:
    """Give the experiment's options by dotted name; the source text of a method file is left out."""
    flat: dict[str, str] = {}
    for key, value in vars(experiment).items():
        options = value if isinstance(value, dict) else getattr(value, "__dict__", None)
        if options is not None:
            flat.update({f"{key}.{name}": str(item)[:MAX_PARAM] for name, item in options.items()})
        elif key != "method_source":
            flat[key] = str(value)[:MAX_PARAM]
    return flat
