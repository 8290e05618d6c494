"""Figures of open-world runs, against numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedssl.report import build, compare
from fedssl.report.clusters import class_marks, confusion_figure, features_figure
from fedssl.report.compare import group_runs, kinds_figure
from fedssl.report.open_world import OpenWorldResult, open_world_of, shares, shares_figure
from fedssl.report.open_world import kinds_figure as one_run
from fedssl.report.run import read, rounds_table
from fedssl.report.split import SplitCounts

NAMES = ("cat", "dog", "owl")
VALUES: dict[str, Any] = {
    "classes": list(NAMES),
    "kinds": [2, 0, 1],
    "matching": [0, 1, 2],
    "named": [2, 1, 0],
    "confusion": [[1, 0, 1], [0, 3, 1], [0, 0, 0]],
    "points": {"x": [0.0, 1.0], "y": [0.0, 2.0], "class": [1, 0]},
    "variance": [0.5, 0.25],
    "centroids": {"x": [1.0, 0.0, 5.0], "y": [0.0, 0.0, 5.0], "class": [2, 1, 0]},
}
RECORDS: list[dict[str, Any]] = [
    {
        "round": 1,
        "cohort": [0, 1],
        "failed": {},
        "train": {f"predicted_{c}": v for c, v in enumerate((0.5, 0.25, 0.25))},
    },
    {
        "round": 3,
        "cohort": [0, 1],
        "failed": {"1": "gone"},
        "train": {f"predicted_{c}": float(c == 1) for c in range(3)},
    },
]
HELD = SplitCounts(np.zeros((2, 3), int), np.array([[2, 2, 0, 7], [0, 2, 4, 0]]), NAMES)


def world(**changes: Any) -> OpenWorldResult:
    found = open_world_of({**VALUES, **changes})
    assert found is not None
    return found


def test_classes_are_ordered_by_kind() -> None:
    assert (world().order, world().bounds(), world().names()) == ([1, 2, 0], [1, 2], ["dog", "owl", "cat"])


@pytest.mark.parametrize(
    "changes",
    [{"kinds": [0, 1]}, {"kinds": [0, 1, 7]}, {"named": [0, 0, 1]}, {"confusion": [[1]]}, {"classes": None}],
)
def test_what_does_not_fit_together_is_no_file(changes: dict[str, Any]) -> None:
    assert open_world_of({**VALUES, **changes}) is None
    assert open_world_of({}) is None


def test_the_confusion_is_in_percent_of_rows_kind_by_kind() -> None:
    figure = confusion_figure(world())
    assert figure is not None
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    # Rows dog, owl (without samples), cat; columns the same.
    assert np.ma.filled(shown, np.nan).tolist()[0] == [75, 25, 0]
    assert np.isnan(np.ma.filled(shown, np.nan)[1]).all()
    assert np.ma.filled(shown, np.nan).tolist()[2] == [0, 50, 50]
    # Four of six samples are right.
    assert "n = 6 test samples; 66.7% on the diagonal" in figure.axes[0].get_title(loc="left")
    assert {line.get_ydata()[0] for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1} >= {0.5, 1.5}
    assert confusion_figure(world(confusion=np.zeros((3, 3), int).tolist())) is None


def test_features_are_marked_by_kind_and_stars_are_named() -> None:
    figure = features_figure(world())
    assert figure is not None
    ax = figure.axes[0]
    assert [cloud.get_label() for cloud in ax.collections] == ["dog (seen)", "cat (globally unseen)"]
    assert np.asarray(ax.collections[1].get_offsets()).tolist() == [[1.0, 2.0]]
    assert [text.get_text() for text in ax.texts] == ["owl", "dog", "cat"]
    assert "the axes hold 75% of the variance" in ax.get_title(loc="left")
    marks = class_marks(world())
    assert [marks[c][1] for c in (1, 2, 0)] == ["o", "s", "^"]
    assert len({color for color, *_ in marks.values()}) == 3


@pytest.mark.parametrize(
    "points", [None, {}, {"x": [1.0], "y": [], "class": [0]}, {"x": [1.0], "y": [1.0], "class": [3]}]
)
def test_without_points_there_is_no_picture(points: Any) -> None:
    assert features_figure(world(points=points)) is None


def test_shares_are_of_the_rounds_clients_and_named_classes() -> None:
    found = shares(rounds_table(RECORDS), RECORDS, HELD, world())
    assert found is not None
    rounds, predicted, true = found
    assert rounds == [1, 3]
    # Id 0 is named owl and id 2 cat; in round 3 client 1 failed, and samples of unknown class count nowhere.
    assert predicted.tolist() == [[0.25, 0.25, 0.5], [0, 1, 0]]
    assert true.tolist() == [[0.2, 0.4, 0.4], [0.5, 0.5, 0]]


def test_shares_are_drawn_by_kind_with_gaps_by_class() -> None:
    figure = shares_figure(rounds_table(RECORDS), RECORDS, HELD, world())
    assert figure is not None
    lines = {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert (lines["seen"], lines["locally unseen"], lines["globally unseen"]) == ([25, 100], [50, 0], [25, 0])
    gaps = np.asarray(figure.axes[1].collections[0].get_array()).reshape(3, 2)
    assert gaps == pytest.approx(np.array([[-15, 50], [10, 0], [5, -50]]))
    assert shares_figure(rounds_table([{"round": 1}]), [], HELD, world()) is None


def test_curves_of_kinds_are_in_percent() -> None:
    scores = {"accuracy_seen": 0.5, "accuracy_locally_unseen": 0.25, "accuracy_all": 0.4, "accuracy_unseen": 0.2}
    records = [{"round": 1, "test": scores}]
    figure = one_run(rounds_table(records), "accuracy_all")
    assert figure is not None
    lines = {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines == {
        "seen classes": [50],
        "locally unseen classes": [25],
        "all unseen classes together": [20],
        "all classes, one matching": [40],
    }
    assert one_run(rounds_table(records), "personal_accuracy_all") is None
    assert one_run(rounds_table([{"round": 1, "test": {"accuracy": 0.5}}]), "accuracy") is None


def make_open(directory: Path) -> Path:
    """Make a made-up run an open-world one."""
    scores = {"accuracy_all": 0.4, "accuracy_seen": 0.5, "accuracy_unseen": 0.25, "nmi_unseen": 0.3}
    lines = []
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        record["test"] = {name: value + record["round"] / 100 for name, value in scores.items()}
        record["train"] = {f"predicted_{c}": 1 / 6 for c in range(6)}
        lines.append(json.dumps(record) + "\n")
    (directory / "metrics.jsonl").write_text("".join(lines))
    (directory / "summary.json").unlink()
    names = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal"]
    values = {
        **VALUES,
        "classes": names,
        "kinds": [0, 0, 0, 1, 2, 2],
        "named": list(range(6)),
        "matching": list(range(6)),
        "confusion": np.eye(6, dtype=int).tolist(),
    }
    (directory / "open_world.json").write_text(json.dumps(values))
    return directory


@pytest.mark.slow
def test_a_page_holds_the_figures_and_names_of_metrics(make_run: Callable[..., Path]) -> None:
    directory = make_open(make_run(rounds=2))
    text = build(directory).read_text()
    assert {"kinds", "confusion", "features", "shares"} <= {path.stem for path in (directory / "figures").iterdir()}
    assert "ended at a test accuracy on all classes of 42.0%" in text
    order = [">accuracy on seen classes<", ">accuracy on unseen classes<", ">NMI on unseen classes<"]
    assert [text.index(name) for name in order] == sorted(text.index(name) for name in order)
    first = build(directory).read_bytes()
    assert build(directory).read_bytes() == first


def test_a_page_without_the_file_says_so(make_run: Callable[..., Path]) -> None:
    directory = make_open(make_run(rounds=2))
    (directory / "open_world.json").unlink()
    text = build(directory).read_text()
    assert "left out or rebuilt from the journal: open_world.json." in text
    drawn = {path.stem for path in (directory / "figures").iterdir()}
    assert ("kinds" in drawn, drawn & {"confusion", "features", "shares"}) == (True, set())


def test_the_comparison_shows_unseen_classes(make_run: Callable[..., Path], tmp_path: Path) -> None:
    made = [make_open(make_run(f"{m}{s}", method=m, seed=s, rounds=2)) for m in ("orca", "fedossl") for s in (0, 1)]
    groups, _ = group_runs([read(path) for path in made])
    figure = kinds_figure(groups, "accuracy_all")
    assert figure is not None
    assert [ax.get_ylabel() for ax in figure.axes] == ["seen (%)", "unseen (%)"]
    assert list(figure.axes[1].lines[0].get_ydata()) == pytest.approx([26, 27])
    text = compare(made, tmp_path / "both").read_text()
    assert "final accuracy on unseen classes, on the same seeds" in text
    assert (tmp_path / "both" / "figures" / "kinds.png").is_file()
    assert text.count("fedossl minus orca") == 2
