"""The table of FedoSSL on the shipped pictures is made of whatever runs there are."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from simulations.compose import compose_experiment

FOLDER = Path(__file__).parents[2] / "benchmarks"
HEAD = "study,method,variant,setting,seed,split,round,metric,value"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("small_table")


def scores(table: ModuleType, path: Path, rows: list[tuple[str, str, str, int, str, float]]) -> Any:
    lines = [f"made,{m},{v},clients=10;seen_ratio={r},{s},test,last,{name},{x}" for m, v, r, s, name, x in rows]
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    return table.Scores(path)


def test_the_difference_is_paired_by_seed(table: ModuleType, tmp_path: Path):
    rows = [("orca", "", "0.6", seed, "accuracy_seen", 0.5 + seed / 10) for seed in range(3)]
    rows += [("fedossl", "", "0.6", seed, "accuracy_seen", 0.52 + seed / 10) for seed in range(2)]
    lines = table.comparison(scores(table, tmp_path / "t.csv", rows)).splitlines()
    assert lines[2].startswith("| FedoSSL | 57.0 ± ")
    assert lines[3].startswith("| Fed-AO (federated ORCA) | 60.0 ± ")
    assert lines[4].startswith("| difference | +2.0 ± 0.0 |")


def test_only_differences_beyond_their_interval_are_told(table: ModuleType, tmp_path: Path):
    seen, unseen, joint = [0.01, 0.01, 0.011], [-0.1, 0.1, 0.0], [-0.1, -0.1, -0.1]
    gains = {"accuracy_seen": seen, "accuracy_unseen": unseen, "accuracy_all": joint}
    rows = [("orca", "", "0.6", seed, name, 0.5) for name in gains for seed in range(3)]
    rows += [("fedossl", "", "0.6", s, name, 0.5 + gain) for name in gains for s, gain in enumerate(gains[name])]
    told = table.verdict(scores(table, tmp_path / "t.csv", rows))
    assert told.startswith("FedoSSL is ahead in Seen and behind in All joint by more than the interval;")
    assert table.verdict(scores(table, tmp_path / "u.csv", rows[3:6])).startswith("No difference exceeds")


def test_the_grid_shows_seed_0_of_what_was_run(table: ModuleType, tmp_path: Path):
    rows = [("fedossl", "", "0.4", seed, "accuracy_unseen", 0.3 + seed) for seed in (0, 1)]
    rows.append(("fedossl", "kmeans", "0.6", 0, "accuracy_unseen", 0.25))
    found = scores(table, tmp_path / "t.csv", rows)
    assert table.grid(found).splitlines()[2:] == [
        "| FedoSSL, 40% of the classes seen | | 30.0 | | | | |",
        "| FedoSSL, 16 centroids by k-means | | 25.0 | | | | |",
    ]
    assert len(table.page(found)) == 5


def test_without_a_grid_the_page_has_none(table: ModuleType, tmp_path: Path):
    found = scores(table, tmp_path / "t.csv", [("orca", "", "0.6", 0, "accuracy_seen", 0.5)])
    assert len(table.page(found)) == 3


@pytest.mark.slow
def test_every_run_of_the_grid_is_there_once_and_composes(table: ModuleType):
    cells = list(importlib.import_module("fedossl_small").cells(2, 1))
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 2 + 2 * 2 + 3
    assert {cell.variant for cell in cells} == set(table.PRIVACY.values())
    for cell in cells:
        made = compose_experiment(list(cell.overrides))
        assert (made.method["name"], made.rounds, made.clients) == (cell.method, 20, 10)


def test_the_published_default_run_is_the_default_run(table: ModuleType):
    cell = next(iter(importlib.import_module("fedossl_small").cells(1, 1)))
    made, default = compose_experiment(list(cell.overrides)), compose_experiment([])
    for group in ("method", "data", "model", "partition", "labels", "calibration", "personalization", "aggregation"):
        assert getattr(made, group) == getattr(default, group)
    assert (made.rounds, made.clients, made.participation) == (default.rounds, default.clients, default.participation)
