"""The `list` command: groups, choices and options as aligned lines, or as JSON for tools."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from fedssl.config import ConfigError, nearest
from simulations.listing import GROUPS, MEANINGS, Choice, Option, choice, choices, group_of, names, search

HELP = """\
fedssl list                  the groups, and how many choices each has
fedssl list GROUP            the choices of a group, a line each
fedssl list KEY=CHOICE       one choice: what it does, what it brings, and its options
fedssl list [GROUP] --search TEXT    the choices that have the text in their name, description or options
  --json                     any of these as JSON

Example: fedssl list methods
         fedssl list method=fixmatch
         fedssl list --search pseudo
"""
_INDENT = "  "
_NARROWEST = 20
"""Columns that a sentence or a meaning gets, however narrow the terminal."""


def list_choices(argv: Sequence[str]) -> int:
    """Print what there is to choose."""
    words, text, as_json = _arguments(argv)
    word = words[0] if words else ""
    group, sign, name = word.partition("=")
    if sign:
        if text is not None:
            raise ConfigError("--search", text, f"left out beside {word}, or given with its group alone")
        _show(choice(group_of(group), name), as_json=as_json)
    elif text is not None:
        _show_all(_found(text, group_of(word) if word else ""), as_json=as_json)
    elif word:
        _show_group(choices(group_of(word)), as_json=as_json)
    else:
        _show_groups(as_json=as_json)
    return 0


def _arguments(argv: Sequence[str]) -> tuple[list[str], str | None, bool]:
    """Return group or choice, the text searched for, and whether JSON is wanted. Raises ConfigError."""
    words, text, as_json = [], None, False
    rest = iter(argv)
    for word in rest:
        option, sign, value = word.partition("=")
        if word == "--json":
            as_json = True
        elif option == "--search":
            text = value if sign else next(rest, "")
            if not text:
                raise ConfigError("--search", text, "followed by a text")
        elif word.startswith("-"):
            raise ConfigError("option", option, "one of --search, --json", nearest(option, ("--search", "--json")))
        else:
            words.append(word)
    if len(words) > 1:
        raise ConfigError("list", " ".join(words), "followed by one group or KEY=CHOICE")
    return words, text, as_json


def _found(text: str, group: str) -> list[Choice]:
    found = search(text, group)
    if not found:
        every = [one for key in ([group] if group else GROUPS.values()) for one in names(key)]
        allowed = f"part of a name, a description or an option of {group or 'a choice'}"
        raise ConfigError("--search", text, allowed, nearest(text, every))
    return found


def _show_groups(*, as_json: bool) -> None:
    if as_json:
        _json({plural: {"key": key, "choices": names(key)} for plural, key in GROUPS.items()})
        return
    rows = [(plural, f"{len(names(key)):>3}", MEANINGS.get(key, "")) for plural, key in GROUPS.items()]
    _print(_aligned(rows))
    _print(["", "Next: fedssl list methods, fedssl list method=fixmatch, fedssl list --search TEXT"])


def _show_group(found: Sequence[Choice], *, as_json: bool) -> None:
    if as_json:
        _json([_record(one) for one in found])
        return
    width = max(len(one.name) for one in found)
    for family, members in groupby(found, key=lambda one: one.family):
        if family:
            _print([f"{family}:"])
        _print(_aligned([(one.name.ljust(width), one.sentence) for one in members], _INDENT if family else ""))


def _show_all(found: Sequence[Choice], *, as_json: bool) -> None:
    if as_json:
        _json([_record(one) for one in found])
        return
    _print(_aligned([(f"{one.group}={one.name}", one.sentence) for one in found]))


def _show(one: Choice, *, as_json: bool) -> None:
    if as_json:
        _json(_record(one))
        return
    _print([f"{one.group}={one.name}" + (f" ({one.family})" if one.family else ""), ""])
    for line in (one.text or one.sentence).splitlines():
        _print(_wrapped(line))
    if one.brings:
        _print(["", "Brings, where you give no other:"])
        _print(_wrapped("  ".join(one.brings), _INDENT))
    if one.options:
        _print(["", "Options (default; allowed):"])
        _print(_option_lines(one.options))


def _option_lines(options: Sequence[Option]) -> list[str]:
    """Return a line an option, its meaning below where the terminal is too narrow."""
    rows = [(f"{item.name}={item.default}", item.allowed, item.meaning) for item in options]
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    width = _width()
    if not width or width >= len(_INDENT) + first + second + 4 + 2 * _NARROWEST:
        hang = " " * (len(_INDENT) + first + second + 4)
        lines = [_wrapped(f"{a:<{first}}  {b:<{second}}  {c}", _INDENT, hang) for a, b, c in rows]
    else:
        lines = [[*_wrapped(f"{a}  ({b})", _INDENT), *_wrapped(c, 2 * _INDENT)] for a, b, c in rows]
    return [line for part in lines for line in part]


def _record(one: Choice) -> dict[str, Any]:
    return dataclasses.asdict(one)


def _json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _aligned(rows: Sequence[tuple[str, ...]], indent: str = "") -> list[str]:
    """Return one line a row, columns aligned, cut to the terminal's width."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        start = indent + "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        room = max(_width() - len(start), _NARROWEST) if _width() else sys.maxsize
        last = row[-1] if len(row[-1]) <= room else row[-1][: room - 1].rstrip() + "…"
        lines.append((start + last).rstrip())
    return lines


def _wrapped(text: str, indent: str = "", hang: str | None = None) -> list[str]:
    if not _width():
        return [(indent + text).rstrip()]
    later = indent if hang is None else hang
    return textwrap.wrap(
        text, _width(), initial_indent=indent, subsequent_indent=later, drop_whitespace=True, break_on_hyphens=False
    ) or [""]


def _width() -> int:
    """Return the terminal's columns; 0 where lines go elsewhere, and are whole."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else 0


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)
