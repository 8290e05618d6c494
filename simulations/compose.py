"""Overrides on the command line to a checked experiment, through Hydra's compose API."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import itertools
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedssl.aggregation import AGGREGATIONS
from fedssl.calibration.base import CALIBRATIONS
from fedssl.config import PARTS, ConfigError, Experiment, from_dict, nearest
from fedssl.data.base import SOURCES
from fedssl.methods.base import METHODS, check_task
from fedssl.models.base import MODELS
from fedssl.partition.base import LABELS, PARTITIONS
from fedssl.personalization.base import PERSONALIZATIONS
from fedssl.registry import Registry

CONF = Path(__file__).parent / "conf"
REGISTRIES: dict[str, Registry[Any]] = {
    registry.group: registry
    for registry in (
        METHODS,
        SOURCES,
        MODELS,
        PARTITIONS,
        LABELS,
        CALIBRATIONS,
        PERSONALIZATIONS,
        AGGREGATIONS,
    )
}
DEFAULT_METHOD = "fedossl"
"""What `fedssl run` runs; `Experiment()` is FixMatch, which needs no pre-training to begin with."""
VERBATIM = ("engine.address",)
"""Options that Hydra does not parse, beside paths."""
OWN = "method"
"""As a calibration or personalization: the method's own."""
_one_at_a_time = threading.Lock()
EXTRAS = {"tensorboard": "tensorboard", "mlflow": "mlflow"}
"""Loggers that need an optional extra, with the module that must be there."""
MAX_RUNS = 10_000
MAX_INT = 2**63 - 1


def split_override(text: str) -> tuple[str, str]:
    """Give (key, value) of `KEY=VALUE`. Raises ConfigError, also for Hydra's `+`, `~` and `hydra.` forms."""
    key, sign, value = text.partition("=")
    if key[:1] in ("+", "~", "-") or key == "hydra" or key.startswith("hydra."):
        raise ConfigError("override", text, "KEY=VALUE without `+`, `~`, dashes or `hydra.`")
    if not sign or not key:
        raise ConfigError("override", text, "KEY=VALUE, as in rounds=5")
    return key, value


def experiments() -> list[str]:
    """Give the names of the shipped presets."""
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def compose_experiment(overrides: Sequence[str]) -> Experiment:
    """Give the checked experiment that the overrides describe. Raises ConfigError."""
    given = unique(overrides)
    source = _load_method_file(given["method_file"]) if "method_file" in given else ""
    preset = _preset(given.get("experiment"))
    chosen = {**{group: str(choice) for group, choice in preset.items() if group in REGISTRIES}, **given}
    if source and "method" not in chosen:
        _check_own(source)
    method = METHODS.get(chosen.get("method", DEFAULT_METHOD))
    defaults = [
        text
        for text in (f"method={method.name}", *method.defaults)
        if (key := split_override(text)[0]) not in given and key.split(".")[0] not in (*given, *preset)
    ]
    choices = {**dict(split_override(text) for text in defaults if "." not in text.split("=")[0]), **chosen}
    _check_keys(given, choices)
    verbatim = {*VERBATIM, *path_keys()} & given.keys()
    composed = _compose([*defaults, *(f"{key}={value}" for key, value in given.items() if key not in verbatim)])
    for key in verbatim:
        head, _, rest = key.partition(".")
        (composed[head] if rest else composed)[rest or head] = given[key]
    _check_sizes(composed)
    return check(from_dict({**composed, "method_source": source}))


def check(experiment: Experiment) -> Experiment:
    """Check every choice and how they fit together, and write out all their options. Raises ConfigError."""
    _check_sizes(dataclasses.asdict(experiment))
    filled: dict[str, Any] = {}
    experiment = dataclasses.replace(experiment, method_file=_absolute(experiment.method_file))
    for group, registry in REGISTRIES.items():
        choice = getattr(experiment, group)
        if choice["name"] == OWN and group in ("calibration", "personalization"):
            choice = {**choice, "name": getattr(METHODS.get(experiment.method["name"]), group)}
        made = registry.create({**choice, **_absolute_paths(registry.get(choice["name"]), choice)})
        filled[group] = {"name": choice["name"], **_as_declared(made)}
    check_task(experiment.method["name"], experiment.data["name"])
    for key in PARTS:
        filled[key] = type(getattr(experiment, key))(**_as_declared(getattr(experiment, key)))
    experiment = dataclasses.replace(experiment, **{**_as_declared(experiment), **filled})
    _check_logger(experiment.logger.name)
    SOURCES.create(experiment.data).fingerprint()
    return experiment


def _as_declared(made: Any) -> dict[str, Any]:
    """Give all fields' values; whole numbers in float fields become floats, so that equal runs have equal text."""
    hints = get_type_hints(type(made))
    values = {item.name: getattr(made, item.name) for item in dataclasses.fields(made) if item.init}
    return {name: float(value) if hints[name] is float else value for name, value in values.items()}


def _check_sizes(values: dict[str, Any], prefix: str = "") -> None:
    """Refuse whole numbers that no array library can take."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_sizes(value, f"{prefix}{key}.")
        elif isinstance(value, int) and abs(value) > MAX_INT:
            raise ConfigError(f"{prefix}{key}", value, "a number of at most 18 digits")


def _check_logger(name: str) -> None:
    module = EXTRAS.get(name)
    if module and importlib.util.find_spec(module) is None:
        raise ConfigError("logger", name, f"installed first: pip install 'fedssl[{name}]'")


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Give every combination of comma-separated values, as `-m` asks for. Raises ConfigError."""
    axes: list[list[str]] = []
    verbatim = {*VERBATIM, *path_keys()}
    for text in overrides:
        key, value = split_override(text)
        if key in verbatim:
            axes.append([text])
            continue
        parsed = _parse(text)
        values = _sweep(key, value, parsed) if parsed.is_sweep_override() else [value]
        axes.append([f"{key}={item}" for item in values])
    if math.prod(len(axis) for axis in axes) > MAX_RUNS:
        raise ConfigError("-m", " ".join(overrides), f"at most {MAX_RUNS} combinations")
    return [list(combination) for combination in itertools.product(*axes)]


def _sweep(key: str, value: str, parsed: Any) -> list[str]:
    try:
        return list(itertools.islice(parsed.sweep_string_iterator(), MAX_RUNS + 1))
    except (HydraException, ValueError, TypeError, AssertionError):
        raise ConfigError(key, value, "values separated by commas, or range(START,STOP)") from None


def unique(overrides: Sequence[str]) -> dict[str, str]:
    """Give the overrides by key. Raises ConfigError on one given twice, and on several values of one."""
    given: dict[str, str] = {}
    paths = path_keys()
    for text in overrides:
        key, value = split_override(text)
        if key in given:
            raise ConfigError(key, value, f"given once, but {key}={given[key]} stands before it")
        if key in paths:
            value = checked_path(key, value)
        elif key not in VERBATIM and _parse(text).is_sweep_override():
            raise ConfigError(key, value, "one value; several need -m")
        given[key] = value
    return given


def path_keys() -> set[str]:
    """Return the keys of all options that are declared as paths, and `resume`."""
    choices = [(f"{group}.", cls) for group, registry in REGISTRIES.items() for cls in registry.values()]
    keys = {
        prefix + item.name
        for prefix, cls in (("", Experiment), *choices)
        for item in dataclasses.fields(cls)
        if item.metadata.get("path")
    }
    return {"resume", *keys}


def _absolute_paths(cls: type[Any], choice: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a choice that are paths, as absolute ones, but for words such as `auto`."""
    paths = [item for item in dataclasses.fields(cls) if item.metadata.get("path")]
    given = {item.name: (choice.get(item.name), item.metadata["words"]) for item in paths}
    return {
        name: _absolute(text) for name, (text, words) in given.items() if isinstance(text, str) and text not in words
    }


def checked_path(field: str, text: str) -> str:
    """Return `own_path` of a path that this system can look up, whether or not it is there. Raises ConfigError."""
    path = own_path(text)
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ConfigError(field, text, f"a path that this system takes ({error.strerror})") from None
    except ValueError:
        pass  # a null character, which each use refuses in its own words
    return path


def own_path(text: str) -> str:
    """Expand a leading `~`; where no user of that name is, the `~` is part of the file's name."""
    path = os.path.expanduser(text)
    return os.path.abspath(path) if path.startswith("~") else path


def _absolute(text: str) -> str:
    """Give a path that means the same from another folder and to a worker; empty stays empty."""
    return os.path.abspath(own_path(text)) if text else text


def _parse(text: str) -> Any:
    key, value = split_override(text)
    if "${" in value:
        raise ConfigError(key, value, "a plain value, without ${...}")
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError, ValueError):
        raise ConfigError(key, value, "a value that Hydra can read; put quotes around special signs") from None


def _preset(name: str | None) -> dict[str, Any]:
    """Give the top-level values of a preset, its choices by group name."""
    if name is None:
        return {}
    if name not in experiments():
        raise ConfigError("experiment", name, f"one of {', '.join(experiments())}", nearest(name, experiments()))
    values = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    chosen = {k.removeprefix("override /"): v for item in values.pop("defaults", []) for k, v in item.items()}
    return {**values, **chosen}


def _load_method_file(path: str) -> str:
    """Register what a user's file holds and give its text. Raises ConfigError."""
    from fedssl.assembly import ALLOW_CODE, load_source

    file = Path(path)
    if not path or not file.is_file():
        raise ConfigError("method_file", path, "the path of a Python file")
    os.environ[ALLOW_CODE] = "1"
    try:
        source = file.read_text(encoding="utf-8")
        load_source(source, str(file))
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError("method_file", path, f"a Python file that runs; it raised {reason}") from None
    return source


def _check_own(source: str) -> None:
    """Check that a user's file holds no method that nothing chooses. Raises ConfigError."""
    from fedssl.assembly import methods_of

    if own := methods_of(source):
        raise ConfigError("method", "", f"given, as method_file holds {', '.join(own)}")


def _check_keys(given: dict[str, str], choices: dict[str, str]) -> None:
    """Check that each key is a field, a group, or an option of the group's choice."""
    fields = {item.name: item for item in dataclasses.fields(Experiment) if item.name != "method_source"}
    top = [*fields, "experiment", "resume"]
    for key, value in given.items():
        head, _, rest = key.partition(".")
        if head not in top:
            raise ConfigError(key, value, f"one of {', '.join(sorted(top))}", nearest(head, top))
        if not rest:
            _check_choice(head, value)
            continue
        if head in PARTS:
            known = [item.name for item in dataclasses.fields(PARTS[head])]
        elif head in REGISTRIES:
            name = choices.get(head) or getattr(Experiment(), head)["name"]
            known = [] if name == OWN else [i.name for i in dataclasses.fields(REGISTRIES[head].get(name))]
        else:
            known = []
        if rest not in known:
            allowed = (
                f"one of {', '.join(f'{head}.{item}' for item in known)}"
                if known
                else f"left out: {_bare(head, choices)}"
            )
            guess = nearest(rest, known)
            raise ConfigError(key, value, allowed, f"{head}.{guess}" if guess else "")


def _bare(head: str, choices: dict[str, str]) -> str:
    """Say what has no options."""
    return f"{head}={choices[head]} has no options" if head in REGISTRIES else f"it is {head}=VALUE"


def _check_choice(group: str, value: str) -> None:
    """Check that a group is given one of its choices."""
    if group in REGISTRIES:
        own = [OWN] if group in ("calibration", "personalization") else []
        known = [*REGISTRIES[group].names(), *own]
    elif group in PARTS:
        known = _part_choices(group)
        if not known:
            options = ", ".join(f"{group}.{item.name}" for item in dataclasses.fields(PARTS[group]))
            raise ConfigError(group, value, f"left out; its options are {options}")
    else:
        return
    if value not in known:
        raise ConfigError(group, value, f"one of {', '.join(known)}", nearest(value, known))


def _part_choices(group: str) -> list[str]:
    fields = dataclasses.fields(PARTS[group])
    return list(next((item.metadata["choices"] for item in fields if item.name == "name"), ()))


def _store() -> None:
    """Tell Hydra all groups and the base configuration, from the dataclasses."""
    store = ConfigStore.instance()
    base: dict[str, Any] = dataclasses.asdict(Experiment())
    defaults: list[Any] = ["_self_"]
    for group, registry in REGISTRIES.items():
        defaults.append({group: base.pop(group)["name"]})
        for name in registry.names():
            options = dataclasses.asdict(registry.get(name)())
            store.store(group=group, name=name, node={"name": name, **options})
    for group in ("calibration", "personalization"):
        store.store(group=group, name=OWN, node={"name": OWN})
    for group, cls in PARTS.items():
        choices = _part_choices(group)
        for name in choices:
            store.store(group=group, name=name, node={**dataclasses.asdict(cls()), "name": name})
        if choices:
            defaults.append({group: base.pop(group)["name"]})
    store.store(name="experiment_base", node={**base, "defaults": [*defaults, {"optional experiment": None}]})


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Keep the one Hydra of a process to this thread, and put back that of a program which calls us."""
    with _one_at_a_time:
        held = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            yield
        finally:
            GlobalHydra.instance().hydra = held


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    try:
        with _own_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
            _store()
            composed = compose("experiment_base", list(overrides))
            values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        line = str(error).strip().splitlines()[0]
        raise ConfigError("override", " ".join(overrides), f"what Hydra can compose ({line})") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
