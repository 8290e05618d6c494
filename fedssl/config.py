"""The experiment: its fields, their defaults, their meaning, and every check on them."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

GROUPS = (
    "method",
    "data",
    "model",
    "partition",
    "labels",
    "calibration",
    "personalization",
    "aggregation",
)


class ConfigError(ValueError):
    """A value that cannot be used: names the field, the value and what is allowed, in one line."""

    def __init__(self, name: str, value: object, allowed: str, guess: str = "") -> None:
        shown = " ".join(repr(value).split())
        # Of a long path, the file's name says most.
        shown = shown if len(shown) <= 80 else f"{shown[:25]}...{shown[-52:]}"
        self.field = name
        super().__init__(f"{name}={shown}: must be {allowed}" + (f"; did you mean {guess}?" if guess else ""))


def nearest(word: object, choices: Iterable[str]) -> str:
    """Give the choice spelled most like `word`, or an empty string."""
    found = difflib.get_close_matches(str(word), list(choices), n=1, cutoff=0.6)
    return found[0] if found else ""


def option(  # noqa: PLR0913
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    multiple: int | None = None,
    choices: Sequence[str] = (),
    path: bool = False,
    words: Sequence[str] = (),
    local: bool = False,
) -> Any:
    """Declare a dataclass field that is a user's option.

    `low` and `high` are inclusive, `above` and `below` exclusive; values are multiples of `multiple`. `doc` gives
    meaning, unit and source. A `path` is a file's or folder's name on this machine, or one of `words`; clients are
    not sent what is `local` to the server.
    """
    metadata = {
        "doc": doc,
        "low": low,
        "high": high,
        "above": above,
        "below": below,
        "multiple": multiple,
        "choices": tuple(choices),
        "path": path,
        "words": tuple(words),
        "local": local,
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_options(cls: type[Any], values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Check types, ranges and choices of the given option values, and give them. Raises ConfigError.

    A whole number given for a number becomes one, so that equal experiments have equal text.
    """
    hints = get_type_hints(cls)
    checked = dict(values)
    for item in dataclasses.fields(cls):
        if item.name in values and item.init:
            name = f"{prefix}.{item.name}" if prefix else item.name
            checked[item.name] = _checked(name, values[item.name], hints[item.name], item.metadata)
    return checked


def _checked(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    allowed = describe(hint, metadata)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ConfigError(name, value, allowed)
        return [_checked(name, part, get_args(hint)[0], metadata) for part in value]
    if hint is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise ConfigError(name, value, allowed) from None
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise ConfigError(name, value, allowed)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(name, value, allowed)
    choices = metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(name, value, allowed, nearest(value, choices))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _in_range(value, metadata):
        raise ConfigError(name, value, allowed)
    return value


def _in_range(value: float, metadata: Mapping[str, Any]) -> bool:
    low, high, above, below, multiple = (metadata.get(k) for k in ("low", "high", "above", "below", "multiple"))
    return (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
        and (multiple is None or value % multiple == 0)
    )


def describe(hint: Any, metadata: Mapping[str, Any]) -> str:
    """Say in words which values an option may take."""
    if metadata.get("choices"):
        return f"one of {', '.join(metadata['choices'])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    text = "a list, each " + names[get_args(hint)[0]] if get_origin(hint) is list else names.get(hint, "valid")
    words = {"low": ">=", "above": ">", "high": "<=", "below": "<"}
    limits = [f"{sign} {metadata[key]:g}" for key, sign in words.items() if metadata.get(key) is not None]
    if multiple := metadata.get("multiple"):
        limits.append(f"a multiple of {multiple}")
    return text + (" " + " and ".join(limits) if limits else "")


@dataclass
class Engine:
    """What runs the clients."""

    name: str = option("ray", "what runs the clients", choices=("ray", "inline", "flower"))
    workers: int = option(0, "worker processes; 0 = one a core", low=0, high=4096)
    address: str = option("", "`auto` or host:port joins a running Ray cluster; empty starts one")
    start: str = option(
        "auto",
        "when Ray starts: `at_once`, before the first round; `never`; `auto`, beside the first rounds once the rest is "
        "worth it, at once if workers or address are given",
        choices=("auto", "at_once", "never"),
    )


@dataclass
class Checkpoint:
    """When the run is saved for resuming."""

    every: int = option(1, "rounds between two checkpoints; 0 = only after the last", low=0)


@dataclass
class Evaluation:
    """When models are scored."""

    every: int = option(1, "rounds between two scores of the global model; the last always counts", low=1)
    personal_every: int = option(
        0, "rounds between two scores of all personalised models; 0 = after the last round only", low=0
    )
    personal_on: str = option(
        "own",
        "test samples of personalised models: each client's `own`, or `all` of the data set",
        choices=("own", "all"),
    )
    transductive: bool = option(
        False, "also score the global model on the clients' unlabelled training samples, by their hidden labels"
    )
    batch_size: int = option(500, "samples a forward pass", low=1)


@dataclass
class Logger:
    """Where metrics go beside the run directory."""

    name: str = option("files", "beside the files", choices=("files", "tensorboard", "mlflow"))


def _group(default: str) -> Any:
    return field(default_factory=lambda: {"name": default})


@dataclass
class Experiment:
    """Everything that defines a run. Groups are `{"name": choice, option: value}`."""

    method: dict[str, Any] = _group("fixmatch")
    data: dict[str, Any] = _group("fashion_small")
    model: dict[str, Any] = _group("resnet")
    partition: dict[str, Any] = _group("dirichlet")
    labels: dict[str, Any] = _group("total_count")
    calibration: dict[str, Any] = _group("method")
    personalization: dict[str, Any] = _group("method")
    aggregation: dict[str, Any] = _group("FedAvg")
    engine: Engine = field(default_factory=Engine)
    logger: Logger = field(default_factory=Logger)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    evaluation: Evaluation = field(default_factory=Evaluation)
    rounds: int = option(40, "rounds of federated training", low=1)
    clients: int = option(10, "clients that hold data", low=1)
    participation: float = option(1.0, "share of the clients that trains in a round", above=0, high=1)
    min_answers: float = option(
        0.5, "share of the round's clients that must answer well; fewer stop the run, with 0 none do", low=0, high=1
    )
    validation: float = option(
        0.1, "share of the training data set aside; `best` and every choice are made on it", low=0, below=1
    )
    seed: int = option(0, "fixes split, initial weights, sampling and augmentation", low=0, high=2**63 - 1)
    precision: str = option("fp32", "arithmetic of training and scoring", choices=("fp32", "bf16", "auto"))
    device: str = option("auto", "where models run", choices=("auto", "cpu", "cuda", "mps"))
    deadline: float = option(3600.0, "seconds that one exchange with the clients may take", above=0)
    out: str = option("", "run directory; empty = runs/DATE-METHOD", path=True)
    method_file: str = option("", "path of a Python file that registers a method of one's own", path=True)
    method_source: str = option("", "text of `method_file`; filled in by the command line")


PARTS: dict[str, type[Any]] = {
    "engine": Engine,
    "logger": Logger,
    "checkpoint": Checkpoint,
    "evaluation": Evaluation,
}


def to_json(experiment: Experiment) -> str:
    """Give the one text that tells everybody what is run; keys sorted, so equal runs have equal text."""
    return json.dumps(dataclasses.asdict(experiment), sort_keys=True)


def from_json(text: str) -> Experiment:
    """Read `to_json`'s text; an empty text is the default experiment. Raises ConfigError."""
    try:
        values = json.loads(text) if text.strip() else {}
    except json.JSONDecodeError as error:
        raise ConfigError("experiment", text, f"JSON ({error.msg} at character {error.pos})") from None
    return from_dict(values)


def from_dict(values: Any) -> Experiment:
    """Build and check an experiment from plain values. Raises ConfigError."""
    if not isinstance(values, dict):
        raise ConfigError("experiment", values, "an object with the experiment's fields")
    values = dict(values)
    known = [item.name for item in dataclasses.fields(Experiment)]
    for key, value in values.items():
        if key not in known:
            raise ConfigError(key, value, f"one of {', '.join(known)}", nearest(key, known))
    for key in GROUPS:
        if key in values and not (isinstance(values[key], dict) and isinstance(values[key].get("name"), str)):
            raise ConfigError(key, values[key], "a choice with a name")
    for key, cls in PARTS.items():
        if key in values:
            values[key] = _part(key, cls, values[key])
    own = {key: value for key, value in values.items() if key not in (*GROUPS, *PARTS)}
    experiment = Experiment(**{**values, **check_options(Experiment, own)})
    if experiment.engine.start == "never" and (experiment.engine.workers > 1 or experiment.engine.address):
        raise ConfigError("engine.start", "never", "auto or at_once, since engine.workers or engine.address need Ray")
    return experiment


def _part(key: str, cls: type[Any], given: Any) -> Any:
    known = [item.name for item in dataclasses.fields(cls)]
    if not isinstance(given, dict):
        raise ConfigError(key, given, f"an object with {', '.join(known)}")
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{key}.{name}", value, f"one of {', '.join(known)}", nearest(name, known))
    return cls(**check_options(cls, given, key))


def sha256(text: str) -> str:
    """Give the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
