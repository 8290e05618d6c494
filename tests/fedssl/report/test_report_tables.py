"""Final and best values, and the warnings above them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedssl.report.run import read
from fedssl.report.split import SplitCounts
from fedssl.report.tables import flatten, outcome, ranges, shown, values_table, warnings


def _rewrite(directory: Path, records: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "metrics.jsonl").write_text(text)


def test_without_a_summary_best_is_the_first_top_of_validation(
    make_run: Callable[..., Path],
) -> None:
    directory = make_run(rounds=1)
    scores = [(0.5, 0.6), (0.8, 0.7), (0.8, 0.9), (0.7, 0.95)]
    _rewrite(
        directory,
        [
            {"round": i, "validation": {"accuracy": val}, "test": {"accuracy": test}}
            for i, (val, test) in enumerate(scores, 1)
        ],
    )
    (directory / "summary.json").unlink()
    result = outcome(read(directory))
    assert result.final == {"round": 4, "accuracy": 0.95}
    assert result.best == {"round": 2, "accuracy": 0.7}


def test_a_round_without_scores_is_not_final(make_run: Callable[..., Path]) -> None:
    directory = make_run(rounds=1)
    _rewrite(directory, [{"round": 1, "test": {"accuracy": 0.5}}, {"round": 2, "test": {}}])
    (directory / "summary.json").unlink()
    assert outcome(read(directory)).final == {"round": 1, "accuracy": 0.5}


def test_values_are_ordered_and_have_units(make_run: Callable[..., Path]) -> None:
    rows = values_table(outcome(read(make_run())))
    assert [row[0] for row in rows[:3]] == ["accuracy", "macro F1", "loss"]
    assert rows[-1][0] == "accuracy, clients' own models"
    assert rows[0][1] == "82.0%"
    assert rows[2][1] == "0.580"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("personal_accuracy", 0.8125, "81.2%"),
        ("ece", 0.0514, "0.051"),
        ("loss", float("nan"), "\N{EN DASH}"),
    ],
)
def test_shown(metric: str, value: float, text: str) -> None:
    assert shown(metric, value) == text


def test_ranges() -> None:
    assert ranges([1, 3, 4, 5, 9]) == "1, 3-5, 9"


def test_flatten_sorts_and_dots() -> None:
    assert flatten({"b": {"y": 2, "x": [1]}, "a": None}) == {"a": "None", "b.x": "[1]", "b.y": "2"}


def test_a_failed_client_is_named_with_its_reason(make_run: Callable[..., Path]) -> None:
    found = warnings(read(make_run()), None)
    assert found == ["Client 3 failed in rounds 3-4: ValueError: loss is nan"]


@pytest.mark.parametrize(("known", "words"), [(0, "have no truth behind them"), (5, "rest on the other 5 alone")])
def test_truth_free_numbers_are_named(make_run: Callable[..., Path], known: int, words: str) -> None:
    split = SplitCounts(np.array([[1]]), np.array([[known, 4]]), ("cat",))
    text = warnings(read(make_run(rounds=1)), split)[-1]
    assert text.startswith(f"4 of {4 + known} unlabelled")
    assert words in text


@pytest.mark.parametrize("known_by", ["model", "map50", "personal_map50_total", "nothing"])
def test_pictures_with_boxes_are_not_said_to_lack_a_truth(make_run: Callable[..., Path], known_by: str) -> None:
    directory = make_run(rounds=1)
    if known_by == "model":
        config = yaml.safe_load((directory / "config.yaml").read_text())
        (directory / "config.yaml").write_text(yaml.safe_dump({**config, "model": {"name": "detector"}}))
    elif known_by != "nothing":
        (directory / "summary.json").write_text(json.dumps({"status": "done", "main_metric": known_by}))
    split = SplitCounts(np.array([[1]]), np.array([[0, 4]]), ("car",))
    (directory / "reliability.json").unlink()
    found = warnings(read(directory), split)
    assert len([line for line in found if "no known class" in line]) == (known_by == "nothing")
    assert len([line for line in found if "reliability.json" in line]) == (known_by == "nothing")
