"""The runs and the page of SemiPFL: the page is made from a table alone, whatever of it is there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from simulations.compose import compose_experiment

FOLDER = Path(__file__).parents[2] / "benchmarks"
HEAD = "study,method,variant,setting,seed,split,round,metric,value"
MAIN = "clients=37;label_rate=0.05"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("semipfl_table")


@pytest.fixture
def runs(table: ModuleType) -> ModuleType:
    return importlib.import_module("semipfl_wisdm")


def line(
    method: str, variant: str, seed: int, metric: str, value: float, *, setting: str = MAIN, at: str = "last"
) -> str:
    return f"made,{method},{variant},{setting},{seed},test,{at},{metric},{value}"


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    return path


def scores_of(path: Path) -> Any:
    return importlib.import_module("long_form").Scores(path)


@pytest.mark.slow
def test_every_run_is_there_once_and_composes(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedssl.data.sources.wisdm import Wisdm

    monkeypatch.setattr(Wisdm, "fingerprint", lambda _: "file")
    cells = list(runs.cells(2, tmp_path))
    assert len({cell.key for cell in cells}) == len(cells)
    for cell in {(cell.method, cell.variant): cell for cell in cells}.values():
        made = compose_experiment(cell.overrides)
        assert made.labels["rate"] == float(cell.setting.split("label_rate=")[1])
        assert (made.personalization["name"] == "mixture") == (cell.method == "semipfl")


def test_scores_on_the_way_do_not_count_as_traffic(runs: ModuleType) -> None:
    records = [
        {"bytes_up": size, "clients": clients}
        for size, clients in ((10, {}), (70, {"0": {}}), (10, {}), (50, {"0": {}}))
    ]
    assert runs.sent(records, "bytes_up") == 10 + 10 + 10 + 50
    assert runs.sent(records[-1:], "bytes_up") == 50


@pytest.mark.parametrize(("users", "rounds", "cohort"), [(37, 31, 6), (20, 17, 6), (10, 9, 6), (5, 5, 5)])
def test_everybody_gets_five_visits_a_user(runs: ModuleType, users: int, rounds: int, cohort: int) -> None:
    made, overrides = runs.schedule(users)
    given = dict(text.split("=") for text in overrides)
    assert (made, round(float(given["participation"]) * users)) == (rounds, cohort)
    assert rounds * cohort >= 5 * users


def test_scores_are_over_users_and_of_each(runs: ModuleType, tmp_path: Path) -> None:
    clients = {str(k): {"personal_macro_f1": value, "accuracy": 0.5} for k, value in enumerate([0.2, 0.4, 0.6])}
    records = [
        {"round": 1, "train": {"simulated_seconds": 30.0}, "clients": {}, "bytes_up": 1, "bytes_down": 2},
        {"round": 2, "train": {"simulated_seconds": 12.0}, "clients": clients, "bytes_up": 3, "bytes_down": 4},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    summary = {"final": {"round": 2, "loss": 0.7}, "best": {}, "wall_seconds": 3.0}
    cell = runs.Cell("semipfl", "weights", MAIN, 0, ())
    rows = runs.scores(cell, {**summary, "directory": str(tmp_path)})
    found = {(at, name): value for at, name, value in rows}
    assert len(found) == len(rows)
    assert found["last", "personal_macro_f1"] == pytest.approx(0.4)
    assert found["last", "personal_macro_f1_std"] == pytest.approx((0.08 / 3) ** 0.5)
    # The 10th percentile of three lies a fifth of the way from the first to the second.
    assert found["last", "personal_macro_f1_p10"] == pytest.approx(0.24)
    assert found["last", "personal_macro_f1_min"] == pytest.approx(0.2)
    assert found["last", "personal_macro_f1_user2"] == pytest.approx(0.6)
    assert (found["last", "personal_accuracy"], found["last", "users"], found["last", "loss"]) == (0.5, 3.0, 0.7)
    assert (found["last", "bytes_up"], found["last", "bytes_down"]) == (4.0, 6.0)
    assert found["2", "simulated_seconds"] == 42.0
    assert ("1", "personal_macro_f1") not in found


def test_runs_that_no_label_touches_stand_at_every_rate_once(runs: ModuleType, tmp_path: Path) -> None:
    none = "clients=37;label_rate=0"
    lines = [
        line("server_only", "", 0, "personal_macro_f1", 0.4, setting=none),
        line("semipfl", "uniform", 0, "personal_macro_f1", 0.5, setting=none),
        line("semipfl", "nofilter", 0, "personal_macro_f1", 0.6, setting=none),
    ]
    out = written(tmp_path / "made.csv", lines)
    runs.repeat_without_labels(out)
    once = out.read_text()
    runs.repeat_without_labels(out)
    assert out.read_text() == once
    rows = scores_of(out).rows
    assert [len(rows[rows.method == name]) for name in ("server_only", "semipfl")] == [5, 5 + 1 + 1]
    assert scores_of(out).values("semipfl", "weights", none, "personal_macro_f1") == {0: 0.5}


def test_a_difference_is_paired_by_user_over_seeds(table: ModuleType, tmp_path: Path) -> None:
    lines = [
        line("semipfl", "weights", seed, f"personal_macro_f1_user{user}", 0.5 + 0.1 * seed + 0.01 * user)
        for seed in (0, 1)
        for user in (0, 1)
    ]
    lines += [line("fedavg", "", 0, f"personal_macro_f1_user{user}", 0.5) for user in (1, 2)]
    scores = scores_of(written(tmp_path / "made.csv", lines))
    ours = table.of_users(scores, table.SEMIPFL)
    assert ours == {0: pytest.approx(0.55), 1: pytest.approx(0.56)}
    # User 1 alone is in both; one user has an interval of no width.
    assert table.points(table.paired(table.of_users(scores, table.Row("", "fedavg")), ours)) == "+6.0 (+6.0 to +6.0)"
    assert table.points(table.paired({}, ours)) == ""


def test_the_bootstrap_interval_is_near_the_normal_one(table: ModuleType) -> None:
    low, high = table.bootstrap([0.0, 1.0] * 50)
    # Standard error 0.5 / sqrt(100) = 0.05.
    assert (low, high) == (pytest.approx(0.5 - 0.098, abs=0.015), pytest.approx(0.5 + 0.098, abs=0.015))


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ([(0.1, 0.0, 0.2), (0.02, 0.01, 0.1)], "**yes**; least difference +2.0"),
        ([(0.1, 0.0, 0.2), (0.02, -0.1, 0.1)], "**not decided**; least difference +2.0"),
        ([(-0.05, -0.2, 0.1), (-0.04, -0.06, -0.02)], "**no**; least difference -4.0"),
        ([(0.1, 0.0, 0.2), (-0.05, -0.1, -0.01)], "**no**; least difference -5.0"),
        ([(-0.05, -0.1, 0.01)], "**not decided**"),
        ([(float("nan"),) * 3], "no runs yet"),
    ],
)
def test_a_question_is_answered_by_its_worst_case(table: ModuleType, found: Any, outcome: str) -> None:
    assert outcome in table.verdict("it helps", found)


def test_the_course_of_a_run_is_in_simulated_minutes(table: ModuleType, tmp_path: Path) -> None:
    import pandas as pd

    lines = [
        line("semipfl", "weights+slow", seed, metric, value, at=at)
        for seed in (0, 1)
        for at, f1, time in (("10", 0.4 + 0.2 * seed, 120), ("5", 0.2, 60 + 60 * seed))
        for metric, value in (("personal_macro_f1", f1), ("simulated_seconds", time))
    ]
    rows = pd.read_csv(written(tmp_path / "made.csv", lines), keep_default_na=False, dtype=str)
    found = table.course(rows, "weights+slow")
    assert found.to_dict("list") == {
        "round": [5, 10],
        "f1": [pytest.approx(0.2), pytest.approx(0.5)],
        "minutes": [1.5, 2.0],
    }


@pytest.mark.parametrize("num_seeds", [0, 1, 3])
def test_the_page_is_made_of_any_table(table: ModuleType, tmp_path: Path, num_seeds: int) -> None:
    values = [0.5, 0.6, 0.7][:num_seeds]
    lines = [line("semipfl", "weights", seed, "personal_macro_f1", value) for seed, value in enumerate(values)]
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    out = written(tmp_path / "made.csv", lines)
    table.publish(out, document, tmp_path)
    once = document.read_text()
    assert once.startswith("before\n<!-- results -->\n## By labels\n")
    assert once.endswith("\n<!-- /results -->\nafter\n")
    assert "nan" not in once
    assert "old" not in once
    means = {0: "", 1: "| SemiPFL | | | 50.0 | | |", 3: "| SemiPFL | | | 60.0 ± 24.8 | | |"}
    assert means[num_seeds] in once
    assert f"over\n{num_seeds} seed{'' if num_seeds == 1 else 's'}. All" in once
    assert (tmp_path / "semipfl_wisdm.png").read_bytes().startswith(b"\x89PNG")
    table.publish(out, document, tmp_path)
    assert document.read_text() == once
