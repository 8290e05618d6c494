"""Write docs/configuration.md from the dataclasses, so that it cannot disagree with them.

python docs/make_configuration.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

from fedssl.config import PARTS, Experiment
from fedssl.config import describe as allowed
from simulations.compose import DEFAULT_METHOD, OWN, REGISTRIES, experiments
from simulations.listing import brought

HEAD = """\
# Configuration

<!-- Written by docs/make_configuration.py; change the dataclasses, not this file. -->

`fedssl run KEY=VALUE ...`. A group takes a choice (`method=fixmatch`) and its options (`method.threshold=0.9`).
A method brings its own defaults for some of them, listed with it; what you give wins. An unknown key, an unknown choice
or a value outside its range ends with exit code 2 and one line that names what is allowed.
`fedssl list` shows the groups, `fedssl list methods` the choices of one, `fedssl list method=fixmatch` its options.
"""
COLUMNS = "| option | default | meaning | allowed |\n| --- | --- | --- | --- |\n"


def page() -> str:
    """Give the whole page."""
    parts = [HEAD, "## Top level\n", _table(Experiment, "", skip=(*REGISTRIES, *PARTS, "method_source"))]
    for name, cls in PARTS.items():
        parts += [f"## `{name}`\n", f"{_first_line(cls)}\n", _table(cls, name)]
    for group, registry in REGISTRIES.items():
        default = getattr(Experiment(), group)["name"]
        parts.append(f"## `{group}`\n")
        if default == OWN:
            parts.append("Default: `method`, the method's own; most have none.\n")
        elif group == "method":
            parts.append(f"Default: `{DEFAULT_METHOD}`; of `Experiment()` in Python, `{default}`.\n")
        else:
            parts.append(f"Default: `{default}`, unless the method names another.\n")
        for choice in registry.names():
            cls = registry.get(choice)
            parts += [f"### `{group}={choice}`\n", f"{_first_line(cls)}\n"]
            if group == "method" and (told := brought(cls)):
                parts.append(f"Brings {told}.\n")
            parts += [_table(cls, group)] if dataclasses.fields(cls) else []
    parts += ["## `experiment`\n", _experiments()]
    return "\n".join(parts)


def _experiments() -> str:
    names = ", ".join(f"`{name}`" for name in experiments())
    return f"Presets in simulations/conf/experiment: {names or 'none yet'}.\n"


def _first_line(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _table(cls: type[Any], prefix: str, skip: tuple[str, ...] = ()) -> str:
    hints = get_type_hints(cls)
    rows = []
    for item in dataclasses.fields(cls):
        if item.name in skip:
            continue
        missing = item.default is dataclasses.MISSING
        default = item.default_factory() if missing else item.default  # type: ignore[misc, operator]
        shown = f"`{default}`" if default != "" else "empty"
        name = f"{prefix}.{item.name}" if prefix else item.name
        cells = (f"`{name}`", shown, item.metadata.get("doc", ""), allowed(hints[item.name], item.metadata))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return COLUMNS + "".join(rows)


if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(page(), encoding="utf-8")
