"""What metrics mean, and that one file is all that a new one takes."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import documents
import pytest
import toys
import yaml

from fedssl.metrics.base import METRICS, PERSONAL, SCORES, Metric, declare, metric_of, score, sort_key
from fedssl.report import build, compare
from fedssl.tasks.base import TASKS


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test registers."""
    for registry in (METRICS, SCORES):
        registry.load()
        monkeypatch.setattr(registry, "_values", dict(registry._values))


@pytest.mark.parametrize(
    ("name", "title", "unit", "is_member"),
    [
        ("accuracy_unseen", "accuracy on unseen classes", "share", False),
        ("map50_partly_cloudy", "mAP at IoU 0.50, partly_cloudy", "share", True),
        ("map50_total", "mAP at IoU 0.50, mean over weathers", "share", False),
        ("personal_ap50_stop", "AP at IoU 0.50, stop, clients' own models", "share", True),
        ("personal_loss", "loss, clients' own models", "nats", False),
        ("accuracy_on_cats", "accuracy on cats", "share", False),
        ("my_own_number", "my own number", "", False),
        ("pseudo_per_image", "pseudo per image", "count", False),
    ],
)
def test_a_name_means_what_was_declared(name: str, title: str, unit: str, *, is_member: bool) -> None:
    found = metric_of(name)
    assert (found.name, found.title, found.unit, found.is_member) == (name, title, unit, is_member)


def test_an_axis_names_the_unit() -> None:
    assert [metric_of(name).axis for name in ("personal_accuracy", "loss", "ece")] == [
        "accuracy, clients' own models (%)",
        "loss (nats)",
        "calibration error (ECE)",
    ]


def test_tables_begin_with_the_global_model_and_end_with_unknown_numbers() -> None:
    names = ["personal_accuracy", "zebra", "brier", "map50_rainy", "loss", "ape", "accuracy"]
    assert sorted(names, key=sort_key) == [
        "accuracy",
        "loss",
        "brier",
        "ape",
        "map50_rainy",
        "zebra",
        "personal_accuracy",
    ]


@pytest.mark.parametrize("task", TASKS.names())
def test_the_metric_that_chooses_the_best_round_is_declared(task: str) -> None:
    main = METRICS.get(TASKS.get(task).main_metric)
    assert (main.better, main.sums_up) == ("higher", True)


@pytest.mark.parametrize("task", TASKS.names())
def test_what_a_line_of_a_round_has_room_for_is_declared(task: str) -> None:
    headline = TASKS.get(task).headline
    assert TASKS.get(task).main_metric in headline
    assert {name.removeprefix(PERSONAL) for name in headline} <= set(METRICS.names())


@pytest.mark.usefixtures("registries")
def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="metric=accuracy is registered twice"):
        declare(Metric("accuracy"))


def test_a_task_without_these_answers_has_no_scores() -> None:
    assert score("classification", {"smells": ()}) == {}


def test_reading_what_metrics_mean_loads_no_torch() -> None:
    code = "import sys; from fedssl.report import build; from fedssl.metrics.base import METRICS; METRICS.names()"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.usefixtures("registries")
def test_the_recipe_of_a_metric_shows_up_everywhere(tmp_path: Path) -> None:
    exec(compile(documents.recipe("Add a metric"), "recipe", "exec"), {"__name__": "recipe"})  # noqa: S102
    for seed in (0, 1):
        chosen, directory = toys.experiment(rounds=1, seed=seed), tmp_path / str(seed)
        toys.run(chosen, directory)
        (directory / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(chosen)))
    record = json.loads((tmp_path / "0" / "metrics.jsonl").read_text())
    value = record["test"]["top2"]
    assert record["test"]["accuracy"] <= value <= 1
    assert json.loads((tmp_path / "0" / "summary.json").read_text())["final"]["top2"] == value
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", build(tmp_path / "0").read_text())
    place = cells.index("top-2 accuracy")
    assert cells[place + 1] == f"{100 * value:.1f}%"
    assert cells.index("accuracy") < place < cells.index("macro F1")
    assert "top-2 accuracy" in compare([tmp_path / "0", tmp_path / "1"], tmp_path / "both").read_text()
