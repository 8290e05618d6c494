"""One run from a checked experiment to its report; `simulate` is the door for Python."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fedssl.config import ConfigError, Experiment, Logger, from_dict
from simulations.compose import check, compose_experiment, unique
from simulations.engine.choose import begun
from simulations.folders import made, new_folder, sole_writer
from simulations.unbegun import missing, removed_unless_begun

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from fedssl.data.base import Dataset, DataSource
    from fedssl.methods.base import Method
    from fedssl.partition.split import Split
    from fedssl.predict.classifier import Predictor
    from fedssl.predict.detector import BoxPredictor
    from fedssl.tasks.base import Task
    from server.watcher import Watcher
    from simulations.engine.choose import Run


@dataclass(frozen=True)
class Result:
    """A finished run: everything is read from its directory when asked for."""

    directory: Path

    @property
    def summary(self) -> dict[str, Any]:
        """Give `summary.json`."""
        values: dict[str, Any] = json.loads((self.directory / "summary.json").read_text())
        return values

    @property
    def rounds(self) -> pd.DataFrame:
        """Give one row a round; nested values as `test.accuracy` and the like."""
        import pandas as pd

        lines = (self.directory / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        for record in records:
            record.pop("clients", None)
        return pd.json_normalize(records)

    @property
    def clients(self) -> pd.DataFrame:
        """Give one row a client and evaluation."""
        import pandas as pd

        # Not by its path: pyarrow takes none that is no UTF-8.
        return pd.read_parquet(BytesIO((self.directory / "clients.parquet").read_bytes()))

    @property
    def model(self) -> Predictor | BoxPredictor:
        """Give the final global model, ready to predict."""
        from fedssl.predict.load import load

        return load(self.directory)


def simulate(experiment: Experiment | Sequence[str], watcher: Watcher | None = None) -> Result:
    """Run an experiment, given as such or as overrides, and give its result. Raises ConfigError, RoundFailed."""
    if isinstance(experiment, Experiment):
        return execute(check(from_dict(dataclasses.asdict(experiment))), watcher)
    given = unique(experiment)
    if "resume" in given:
        return execute(load_run(given.pop("resume"), given), watcher, resume=True)
    return execute(compose_experiment(experiment), watcher)


def execute(experiment: Experiment, watcher: Watcher | None = None, *, resume: bool = False) -> Result:
    """Run or resume a checked experiment in its run directory."""
    from fedssl.assembly import ALLOW_CODE

    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ[ALLOW_CODE] = "1"
    if not resume:
        check_out(experiment.out)
    warnings = prepare(experiment, resume=resume)
    experiment = _with_weights(experiment)
    place = _resumed_directory if resume else _new_directory
    with begun(experiment, apart=resume and _was_killed(Path(experiment.out))) as run, place(experiment) as directory:
        _execute(replace(experiment, out=str(directory)), run, watcher, warnings, resume=resume)
    return Result(directory)


def _execute(
    experiment: Experiment, run: Run, watcher: Watcher | None, warnings: Sequence[str], *, resume: bool
) -> None:
    """Run in the directory that is there, to the report."""
    directory = Path(experiment.out)
    if resume:
        resume = _has_checkpoint(directory)
        if not resume:
            # Stopped before the first checkpoint: the same run from its first round.
            (directory / "metrics.jsonl").unlink(missing_ok=True)
    _describe(directory, experiment)
    from server.watcher import Silence

    with _loggers(experiment, watcher or Silence()) as seen:
        for warning in warnings:
            seen.warn(warning)
        try:
            run(experiment, seen, resume)
        except KeyboardInterrupt:
            # Drawing takes longer than a person waits after Ctrl-C.
            seen.warn(f"stopped; to go on: fedssl run resume={directory}; to see it: fedssl report {directory}")
            raise
        except Exception:
            _report(directory, seen)
            raise
        _report(directory, seen)


def prepare(experiment: Experiment, *, resume: bool = False) -> list[str]:
    """Decode the data, make the split and shape the network, so that nothing is written for what cannot run.

    Gives warnings of what can run, but hardly learn.
    """
    from fedssl.assembly import assemble, opened, split_of
    from fedssl.data.base import SOURCES
    from fedssl.models.base import MODELS
    from fedssl.models.weights import AUTO, load_backbone
    from fedssl.partition.client_data import ClientDataFactory
    from fedssl.runtime import choose_device
    from server.app import for_clients

    choose_device(experiment.device)
    source = SOURCES.create(experiment.data)
    # A resumed run has its weights from the checkpoint.
    parts = assemble(for_clients(experiment) if resume else experiment)
    dataset = opened(experiment, source)
    split = split_of(experiment, dataset)
    import torch

    with torch.device("meta"):
        model = MODELS.create(experiment.model).build(dataset.shape, dataset.num_classes)
    _check_network(experiment, model, parts.task)
    parts.personalization.prepare(model)
    own = ClientDataFactory(dataset, split, source.flip, torch.device("cpu")).server()
    parts.method.check(model, own, experiment.clients)
    if (path := experiment.model.get("weights")) and path != AUTO and not resume:
        load_backbone(model, path, experiment.model["weights_sha256"])
    return parts.method.warnings(experiment, own) + _warnings(experiment, parts.method, source, dataset, split)


def _warnings(experiment: Experiment, method: Method, source: DataSource, dataset: Dataset, split: Split) -> list[str]:
    from fedssl.data.checks import check_dataset
    from fedssl.partition.base import PARTITIONS

    found = check_dataset(dataset)
    if method.learns_from_labels and not any(len(split.client(k).labelled) for k in range(split.num_clients)):
        found.append(f"no client has a labelled sample, and method={method.name} learns from these; see labels")
    if not method.takes_average and (chosen := experiment.aggregation["name"]) != "FedAvg":
        found.append(f"aggregation={chosen} has no effect: method={method.name} takes no average of the clients")
    partly = experiment.labels["name"] == "asis" and bool((dataset.train.y < 0).any())
    if partly and PARTITIONS.get(partition := experiment.partition["name"]).open_world:
        withheld = f"partition={partition} withholds labels of the classes that are to be unseen"
        found.append(f"{withheld}; another partition keeps all that the data have")
    if split.dropped:
        found.append(f"{split.dropped} training samples are with nobody")
    if source.dealt and experiment.partition["name"] != "natural":
        found.append(f"partition={experiment.partition['name']} deals out anew what the table gives to clients")
    return found


def _check_network(experiment: Experiment, model: torch.nn.Module, task: Task) -> None:
    """Check that a detector gets boxes to learn, and that nothing else does. Raises ConfigError."""
    boxes = task.finds_boxes
    if boxes != hasattr(model, "decode"):
        kind = "a detector (model=detector), as it has boxes" if boxes else "no detector, as it has no boxes"
        allowed = f"one that fits data={experiment.data['name']}: {kind}"
        raise ConfigError("model", experiment.model["name"], allowed)


def _with_weights(experiment: Experiment) -> Experiment:
    """Give the experiment with the file and hash of its starting weights, trained now for `model.weights=auto`."""
    from fedssl.pretraining.run import fix_weights
    from simulations.pretrain import Lines

    epochs = int(experiment.model.get("pretrain_epochs", 0))
    return fix_weights(experiment, lambda line: print(line, flush=True), Lines(epochs))


def prepare_split(experiment: Experiment) -> tuple[Split, list[str]]:
    """Decode the data; return the split and the data's warnings. Raises ConfigError."""
    from fedssl.assembly import opened, split_of
    from fedssl.data.base import SOURCES
    from fedssl.data.checks import check_dataset

    dataset = opened(experiment, SOURCES.create(experiment.data))
    return split_of(experiment, dataset), check_dataset(dataset)


def load_run(directory: str, overrides: dict[str, str]) -> Experiment:
    """Give the experiment of a run to be resumed; only `rounds` (larger), `engine.*` and `logger` may change."""
    path = Path(directory)
    before = _read_config(directory, path / "config.yaml")
    values = dataclasses.asdict(before)
    for key, text in overrides.items():
        if key != "rounds" and key not in ("engine", "logger") and not key.startswith("engine."):
            raise ConfigError(key, text, "left out: beside `resume` only rounds, engine.* and logger may be given")
        head, _, rest = key.partition(".")
        value = text if rest == "address" else _scalar(text)
        if rest or head != "rounds":
            values[head][rest or "name"] = value
        else:
            values[head] = value
    experiment = from_dict({**values, "out": str(path)})
    if experiment.rounds < before.rounds:
        raise ConfigError("rounds", experiment.rounds, f"at least the {before.rounds} of the run")
    if experiment.method_source:
        from fedssl.assembly import ALLOW_CODE, load_source

        os.environ[ALLOW_CODE] = "1"
        load_source(experiment.method_source, experiment.method_file)
    return check(experiment)


def _read_config(directory: str, config: Path) -> Experiment:
    if not directory or not config.is_file():
        raise ConfigError("resume", directory, "a run directory (it has no config.yaml)")
    try:
        return from_dict(yaml.safe_load(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError("resume", directory, f"a run directory with a sound config.yaml ({reason})") from None


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _has_checkpoint(directory: Path) -> bool:
    return any((directory / "checkpoint").glob("round-*"))


def _directory(experiment: Experiment) -> Path:
    """Make the run directory. Raises ConfigError if it holds something or cannot be made."""
    if not experiment.out:
        return new_folder(Path(f"runs/{datetime.datetime.now():%Y%m%d-%H%M%S}-{experiment.method['name']}"))
    check_out(experiment.out)
    return made(Path(experiment.out))


@contextmanager
def _resumed_directory(experiment: Experiment) -> Iterator[Path]:
    with sole_writer(Path(experiment.out), "resume"):
        yield Path(experiment.out)


@contextmanager
def _new_directory(experiment: Experiment) -> Iterator[Path]:
    """Make the run directory for this process alone; nothing of it stays if the run fails before it has begun."""
    new = missing(Path(experiment.out or "runs"))
    directory = _directory(experiment)
    with sole_writer(directory), removed_unless_begun(directory, new if experiment.out else [directory, *new]):
        check_out(str(directory))
        yield directory


def check_out(out: str) -> None:
    """Check that a run directory is free and can be made. Raises ConfigError."""
    path = Path(out or "runs")
    if "\0" in out or (out and path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigError("out", out, "a folder that is empty or does not exist yet")
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError("out", out, f"a folder that can be made, which {nearest} does not allow")


def _was_killed(directory: Path) -> bool:
    """Say whether a run ended without a word, as when a client crashed in this process."""
    return (directory / "split.npz").exists() and not (directory / "summary.json").exists()


def plan(experiment: Experiment) -> None:
    """Make the directory of a run that `execute` will be given to resume, before its first round."""
    with _new_directory(experiment) as directory:
        _describe(directory, experiment)


def _describe(directory: Path, experiment: Experiment) -> None:
    from fedssl.files import write_atomically
    from simulations.environment import describe

    text = yaml.safe_dump(dataclasses.asdict(experiment), sort_keys=False, allow_unicode=True)
    write_atomically(directory / "config.yaml", text.encode())
    environment = json.dumps(describe(experiment), indent=2)
    write_atomically(directory / "environment.json", environment.encode())


@contextmanager
def _loggers(experiment: Experiment, watcher: Watcher) -> Iterator[Watcher]:
    chosen: Logger = experiment.logger
    if chosen.name == "files":
        yield watcher
        return
    from simulations.loggers import logging_to

    with logging_to(chosen.name, experiment, watcher) as seen:
        yield seen


def _report(directory: Path, watcher: Watcher) -> None:
    """Build the report; a run whose report cannot be drawn is a run all the same."""
    from fedssl.report.page import build
    from fedssl.report.run import read
    from fedssl.report.tables import outcome_warnings

    if not (directory / "metrics.jsonl").exists():
        return
    try:
        build(directory)
        for line in outcome_warnings(read(directory)):
            watcher.warn(line)
    except Exception as error:
        watcher.warn(f"report not built: {type(error).__name__}: {error}; try: fedssl report {directory}")
