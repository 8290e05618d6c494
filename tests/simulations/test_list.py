"""`fedssl list`: groups, choices and options, for a person and for tools."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fedssl.methods.base import METHODS
from simulations.cli import main
from simulations.compose import REGISTRIES, compose_experiment, experiments
from simulations.listing import GROUPS, MEANINGS, choice

Shown = Callable[..., str]

NAMES = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("fedssl.methods.")]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Run `fedssl list` with these words; return what it prints."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: str) -> str:
        assert main(["list", *words]) == 0
        return capsys.readouterr().out

    return run


def test_groups_are_shown_with_their_counts(shown: Shown) -> None:
    lines = [line.split() for line in shown().splitlines() if line]
    counts = {line[0]: line[1] for line in lines[:-1]}
    assert counts == {
        plural: str(len(experiments() if key == "experiment" else REGISTRIES[key].names()))
        for plural, key in GROUPS.items()
    }
    assert set(GROUPS) >= {"methods", "data", "models", "partitions", "labels", "experiments"}
    assert json.loads(shown("--json"))["methods"] == {"key": "method", "choices": METHODS.names()}


@pytest.fixture(autouse=True)
def built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget methods that other tests have registered."""
    own = {name: METHODS.get(name) for name in NAMES}
    monkeypatch.setattr(METHODS, "_values", own)


@pytest.mark.parametrize("plural", GROUPS)
def test_each_choice_has_one_line(shown: Shown, plural: str) -> None:
    key = GROUPS[plural]
    assert MEANINGS[key]
    found = shown(plural)
    names = experiments() if key == "experiment" else REGISTRIES[key].names()
    rows = [line for line in found.splitlines() if not line.endswith(":")]
    assert sorted(row.split()[0] for row in rows) == sorted(names)
    starts = {row.index(row.split(maxsplit=1)[1], len(row.split()[0])) for row in rows}
    assert len(starts) == 1
    assert shown(key) == found
    assert [one["name"] for one in json.loads(shown(plural, "--json"))] == [row.split()[0] for row in rows]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_lines_fit_the_terminal(shown: Shown, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    whole = shown("methods")
    monkeypatch.setenv("COLUMNS", str(columns))
    cut = shown("methods").splitlines()
    assert len(cut) == len(whole.splitlines())
    for line in [*cut, *shown("methods").splitlines(), *shown("method=fedsto").splitlines()]:
        assert len(line) <= columns
    assert any(line.endswith("…") for line in cut) is (columns < 120 or max(map(len, whole.splitlines())) > columns)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_shown_with_its_options_and_what_it_brings(shown: Shown, name: str) -> None:
    found = shown(f"method={name}")
    composed = compose_experiment([f"method={name}"]).method
    for option in choice("method", name).options:
        assert f"  {option.name}={option.default}  " in found
        assert option.allowed in found
        assert option.meaning in found
        assert option.name.removeprefix("method.") in composed
    assert all(text in found for text in METHODS.get(name).defaults)
    assert (METHODS.get(name).__doc__ or "").strip().splitlines()[0] in found


def test_defaults_are_written_as_they_are_given(shown: Shown) -> None:
    assert "  method.threshold=0.95         a number >= 0 and <= 1 " in shown("method=fixmatch")
    assert "  model.depths=[" in shown("model=detector")
    for group in REGISTRIES:
        for name in REGISTRIES[group].names():
            for option in choice(group, name).options:
                assert "'" not in option.default


def test_a_preset_is_shown_as_its_file(shown: Shown) -> None:
    assert "override /method: fedsto" in shown("experiment=fedsto_scenes")


def test_a_methods_own_hook_is_a_choice_too(shown: Shown) -> None:
    assert shown("calibration=method").startswith("calibration=method\n\nThe method's own calibration")


def test_a_text_is_found_in_names_descriptions_and_options(shown: Shown) -> None:
    found = [line.split()[0] for line in shown("--search", "DIRICHLET").splitlines()]
    assert "partition=dirichlet" in found
    assert "experiment=fixmatch_dirichlet01" in found
    assert "partition=iid" not in found
    assert "method=fixmatch" in shown("--search=unlabelled loss")
    assert "method=fixmatch" not in shown("models", "--search=width")
    assert [one["name"] for one in json.loads(shown("--search", "Krum", "--json"))] == ["Krum", "MultiKrum"]
