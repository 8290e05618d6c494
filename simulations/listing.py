"""The choices of each config group in words."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from fedssl.config import describe as allowed
from simulations.compose import CONF, REGISTRIES, experiments

GROUPS = {
    "methods": "method",
    "data": "data",
    "models": "model",
    "partitions": "partition",
    "labels": "labels",
    "calibrations": "calibration",
    "personalizations": "personalization",
    "aggregations": "aggregation",
    "experiments": "experiment",
}


def describe(word: str) -> str:
    """Give name, first line of the documentation, and options with defaults and ranges of every choice."""
    if word == "experiments":
        return "".join(f"{name}: {_first_comment(name)}\n" for name in experiments())
    registry = REGISTRIES[GROUPS[word]]
    return "".join(_choice(GROUPS[word], name, registry.get(name)) for name in registry.names())


def brought(cls: Any) -> str:
    """Give the overrides that come with a method; those of its own options count only where no method is named."""
    always, unnamed = (
        " ".join(text for text in cls.defaults if text.startswith("method.") is own) for own in (False, True)
    )
    parts = [f"`{always}`"] if always else []
    return "; ".join([*parts, f"where no method is named also `{unnamed}`"] if unnamed else parts)


def _choice(group: str, name: str, cls: Any) -> str:
    lines = [f"{group}={name}: {(cls.__doc__ or '').strip().splitlines()[0]}"]
    if group == "method" and (told := brought(cls)):
        lines.append(f"    brings {told}")
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore[misc, operator]
        words = allowed(hints[item.name], item.metadata)
        lines.append(f"    {group}.{item.name}={default}  {item.metadata.get('doc', '')} ({words})")
    return "\n".join(lines) + "\n"


def _first_comment(name: str) -> str:
    """Give what a preset says of itself; Hydra wants its own `# @` header before that."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if line.startswith("#") and not line.startswith("# @"))
    return next(lines, "").lstrip("# ")
