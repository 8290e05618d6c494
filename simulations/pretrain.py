"""The `pretrain` command."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedssl.config import ConfigError, Experiment, check_options, nearest
from fedssl.pretraining.settings import Pretraining
from simulations.failures import show_warnings
from simulations.folders import sole_writer

HELP = """\
fedssl pretrain [KEY=VALUE ...]    train a backbone on images without labels, for runs with model.weights=FILE

Example: fedssl pretrain data=fashion_small model.width=16 epochs=20 out=weights.safetensors
Stopped, it goes on when the same command is given again; weights and scores are written at the end.
data, model, partition, labels, clients, validation, seed, precision, device and experiment are those of `fedssl run`.
Its own keys:
"""
OUT = "pretrained.safetensors"
_SHARED = (
    *("data", "model", "partition", "labels", "clients", "validation"),
    *("seed", "precision", "device", "experiment"),
)
_OWN = {item.name: item for item in dataclasses.fields(Pretraining)}


def help_text() -> str:
    """Give the help with all options."""
    lines = [f"  {name}={item.default}  {item.metadata['doc']}" for name, item in _OWN.items()]
    return HELP + "\n".join([*lines, f"  out={OUT}  the file to write"]) + "\n"


def read(argv: Sequence[str]) -> tuple[Experiment, Pretraining, Path]:
    """Give data and model as an experiment, the options, and the file to write. Raises ConfigError."""
    from simulations.compose import compose_experiment, unique

    given = unique(argv)
    known = [*_OWN, "out", *_SHARED]
    for key, value in given.items():
        if key not in (*_OWN, "out") and key.partition(".")[0] not in _SHARED:
            raise ConfigError(key, value, f"one of {', '.join(known)}", nearest(key, known))
    own = check_options(Pretraining, {key: _value(given[key]) for key in _OWN if key in given})
    if "precision" not in given and "experiment" not in given:
        given["precision"] = "auto"
    shared = [f"{key}={value}" for key, value in given.items() if key not in (*_OWN, "out")]
    return compose_experiment(shared), Pretraining(**own), _free(given.get("out", OUT))


def pretrain(argv: Sequence[str]) -> int:
    """Pre-train, with a line an epoch."""
    experiment, settings, out = read(argv)
    from fedssl.data.checks import check_dataset
    from fedssl.pretraining.plan import plan
    from fedssl.pretraining.run import checkpoint_of, description_of
    from fedssl.pretraining.run import pretrain as train

    todo = plan(experiment, settings)
    show_warnings(check_dataset(todo.dataset))
    out.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"{settings.loss} · {todo.dataset.name} · {experiment.model['name']}: {len(todo.index)} images, "
        f"{settings.epochs} epochs, {todo.precision} on {todo.device}",
        flush=True,
    )
    if checkpoint_of(out).exists():
        print(f"going on from {checkpoint_of(out)}", flush=True)
    try:
        with sole_writer(out):
            described = train(todo, _free(str(out)), Lines(settings.epochs))
    except KeyboardInterrupt:
        print("stopped; to go on, give the same command again", flush=True)
        raise
    scores = ", ".join(f"{name} {value:.4f}" for name, value in described["scores"].items())
    print(f"final: {scores}\nweights: {out}\ndescribed in: {description_of(out)}", flush=True)
    return 0


class Lines:
    """Prints a line an epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.first, self.began = epochs, 0, time.perf_counter()

    def __call__(self, record: dict[str, float]) -> None:
        """Print loss, k-NN accuracy where scored, and the time."""
        from simulations.progress import span

        number = int(record["epoch"])
        self.first = self.first or number
        left = (time.perf_counter() - self.began) / (number - self.first + 1) * (self.epochs - number)
        score = f"  k-NN {record['knn_accuracy']:.3f}" if "knn_accuracy" in record else ""
        line = f"epoch {number}/{self.epochs}  loss {record['loss']:.3f}{score}  {record['seconds']:.1f} s"
        print(f"{line}, {span(left)} left", flush=True)


def _value(text: str) -> Any:
    """Read a number where the text is one, else leave it text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _free(text: str) -> Path:
    """Give the path of a file that can be made. Raises ConfigError."""
    path = Path(os.path.abspath(text)) if text and "\0" not in text else None
    if path is None or path.exists():
        raise ConfigError("out", text, "a file that does not exist yet")
    nearest_place = next(place for place in path.parents if place.exists())
    if not nearest_place.is_dir() or not os.access(nearest_place, os.W_OK | os.X_OK):
        raise ConfigError("out", text, f"a file that can be made, which {nearest_place} does not allow")
    return path
