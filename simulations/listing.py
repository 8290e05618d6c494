"""The choices of each config group: what there is, what each does, and its options."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any, get_type_hints

from fedssl.config import ConfigError, nearest
from fedssl.config import describe as allowed
from simulations.compose import CONF, OWN, REGISTRIES, experiments

PRESET = "experiment"
_ALIKE = ("data", "labels")
"""Groups whose plural is their name."""
GROUPS = {(key if key in _ALIKE else f"{key}s"): key for key in (*REGISTRIES, PRESET)}
"""The plural, which `fedssl list` shows, and the key of `fedssl run`."""
MEANINGS = {
    "method": "what clients and server do in a round",
    "data": "where samples come from",
    "model": "the network",
    "partition": "which client holds which samples",
    "labels": "which samples are labelled",
    "calibration": "how confidences are made to fit the accuracy",
    "personalization": "what each client's own model is",
    "aggregation": "how the server joins the clients' answers",
    PRESET: "presets: all options of a published or a small experiment under one name",
}


@dataclass(frozen=True)
class Option:
    """One option of a choice: `default` as it is written on the command line."""

    name: str
    default: str
    allowed: str
    meaning: str


@dataclass(frozen=True)
class Choice:
    """One choice of a group.

    `family` is what it stands under in a list, `sentence` what it does, `text` all that its class says of itself (a
    preset: its file), `brings` the overrides that come with it where the user gives none.
    """

    group: str
    name: str
    family: str
    sentence: str
    text: str
    brings: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()


def group_of(word: str) -> str:
    """Return the key of a group given by its plural or its key. Raises ConfigError with the nearest spelling."""
    if word not in GROUPS and word not in GROUPS.values():
        raise ConfigError("list", word, f"one of {', '.join(GROUPS)}", nearest(word, (*GROUPS, *GROUPS.values())))
    return GROUPS.get(word, word)


def names(group: str) -> list[str]:
    """Return the names of a group's choices, without reading them."""
    return experiments() if group == PRESET else REGISTRIES[group].names()


def choices(group: str) -> list[Choice]:
    """Return all choices of a group, family by family."""
    return sorted((choice(group, name) for name in names(group)), key=lambda one: one.family)


def choice(group: str, name: str) -> Choice:
    """Return one choice. Raises ConfigError with the nearest spelling."""
    if group == PRESET:
        if name not in experiments():
            raise ConfigError(PRESET, name, f"one of {', '.join(experiments())}", nearest(name, experiments()))
        text = (CONF / PRESET / f"{name}.yaml").read_text(encoding="utf-8")
        return Choice(group, name, "", _first_comment(text), text.strip())
    if name == OWN and group in ("calibration", "personalization"):
        return Choice(group, name, "", f"The method's own {group}; most have none.", "")
    cls: Any = REGISTRIES[group].get(name)
    text = inspect.cleandoc(cls.__doc__ or "")
    brings = tuple(cls.defaults) if group == "method" else ()
    return Choice(group, name, _family(cls), (text.splitlines() or [""])[0], text, brings, options(cls, group))


def options(cls: Any, prefix: str) -> tuple[Option, ...]:
    """Return the options of a choice's class, in the order of its fields."""
    hints = get_type_hints(cls)
    found = []
    for item in dataclasses.fields(cls):
        if not item.init:
            continue
        missing = item.default is dataclasses.MISSING
        default = item.default_factory() if missing else item.default  # type: ignore[misc, operator]
        words = allowed(hints[item.name], item.metadata)
        found.append(Option(f"{prefix}.{item.name}", _written(default), words, item.metadata.get("doc", "")))
    return tuple(found)


def search(text: str, group: str = "") -> list[Choice]:
    """Return the choices, of one group or of all, that have a text in their name, description or options."""
    wanted = text.casefold()
    every = [one for key in ([group] if group else GROUPS.values()) for one in choices(key)]
    return [one for one in every if wanted in _everything(one).casefold()]


def brought(cls: Any) -> str:
    """Give the overrides that come with a method; those of its own options count only where no method is named."""
    always, unnamed = (
        " ".join(text for text in cls.defaults if text.startswith("method.") is own) for own in (False, True)
    )
    parts = [f"`{always}`"] if always else []
    return "; ".join([*parts, f"where no method is named also `{unnamed}`"] if unnamed else parts)


def _everything(one: Choice) -> str:
    return "\n".join([f"{one.group}={one.name}", one.text, *(f"{item.name} {item.meaning}" for item in one.options)])


def _family(cls: Any) -> str:
    """Return what a class says, or the tasks that it is for."""
    if family := getattr(cls, "family", ""):
        return str(family)
    tasks = getattr(cls, "tasks", None) or ((cls.task,) if isinstance(getattr(cls, "task", None), str) else ())
    return ", ".join([*tasks, *(["open world"] if getattr(cls, "open_world", False) and tasks else [])])


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(_written, value))}]" if isinstance(value, list) else str(value)


def _first_comment(text: str) -> str:
    """Return what a preset says of itself; Hydra wants its own `# @` header before that."""
    lines = (line for line in text.splitlines() if line.startswith("#") and not line.startswith("# @"))
    return next(lines, "").lstrip("# ")
