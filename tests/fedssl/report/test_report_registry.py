"""Figures of the page are declared in one place, and drawn where what they need is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents
import pytest

from fedssl.report import build
from fedssl.report.figures import FIGURES, MATERIAL, register
from fedssl.report.page import material_of
from fedssl.report.run import read
from fedssl.report.split import read_split
from fedssl.report.tables import outcome

ALL: dict[str, Any] = dict.fromkeys(MATERIAL, "there") | {"names": {"personal_ap50_stop"}}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test registers."""
    FIGURES.load()
    monkeypatch.setattr(FIGURES, "_values", dict(FIGURES._values))


@pytest.mark.usefixtures("figures")
def test_the_recipe_of_a_figure_shows_up_in_its_place(make_run: Callable[..., Path]) -> None:
    exec(compile(documents.recipe("Add a figure of the report"), "recipe", "exec"), {"__name__": "recipe"})  # noqa: S102
    directory = make_run(rounds=2)
    text = build(directory).read_text()
    assert (directory / "figures" / "f1.png").is_file()
    places = [text.index(f">{heading}<") for heading in ("Scores by round", "Macro F1", "Reliability")]
    assert places == sorted(places)
    assert "Rare classes count as much as others." in text
    assert 'alt="Macro F1: macro F1 (%), by round"' in text


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize(
    ("needs", "material", "is_drawn"),
    [
        ({}, ALL, True),
        ({"metrics": ("map50", "ap50")}, ALL, True),
        ({"metrics": ("map50",)}, ALL, False),
        ({"files": ("here.json",)}, ALL, True),
        ({"files": ("here.json", "gone.json")}, ALL, False),
        ({}, {"names": set()}, False),
    ],
)
def test_a_figure_is_left_out_unless_what_it_needs_is_there(
    tmp_path: Path, needs: dict[str, Any], material: dict[str, Any], *, is_drawn: bool
) -> None:
    drawn: list[str] = []
    register("toy", "Toy", "A toy.", order=1, takes=("split",), **needs)(drawn.append)  # type: ignore[arg-type]
    (tmp_path / "here.json").write_text("{}")
    FIGURES.get("toy").draw(tmp_path, material)
    assert drawn == ["there"] * is_drawn


def test_an_argument_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="figure=toy takes weather, which is none of table, clients"):
        register("toy", "Toy", "A toy.", order=1, takes=("weather",))


def test_the_page_has_the_material(make_run: Callable[..., Path]) -> None:
    run = read(make_run(rounds=1))
    material = material_of(run, outcome(run), read_split(run.directory / "split.npz"))
    assert set(material) == {*MATERIAL, "names"} - {"world"}


def test_no_two_figures_claim_one_place_and_all_have_a_caption() -> None:
    places = [each.order for each in FIGURES.values()]
    assert len(set(places)) == len(places)
    assert all(each.caption.endswith(".") for each in FIGURES.values())
