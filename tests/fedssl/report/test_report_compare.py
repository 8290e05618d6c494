"""Several runs on one page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedssl.config import ConfigError
from fedssl.report import compare
from fedssl.report.compare import (
    common_metric,
    curves_figure,
    differences,
    group_runs,
    kinds_figure,
    result_rows,
    values_by_seed,
)
from fedssl.report.run import read


def _set_final(directory: Path, accuracy: float) -> None:
    path = directory / "summary.json"
    summary = json.loads(path.read_text())
    summary["final"] = {"round": 2, "accuracy": accuracy}
    path.write_text(json.dumps(summary))


@pytest.fixture
def runs(make_run: Callable[..., Path]) -> list[Path]:
    """Two methods on seeds 0 and 1: 0.5 and 0.7 against 0.6 and 0.9."""
    finals = {("fixmatch", 0): 0.5, ("fixmatch", 1): 0.7, ("fedavg", 0): 0.6, ("fedavg", 1): 0.9}
    made = []
    for (method, seed), accuracy in finals.items():
        made.append(make_run(f"{method}{seed}", method=method, seed=seed, rounds=2))
        _set_final(made[-1], accuracy)
    return made


def test_seeds_are_grouped_and_engines_ignored(runs: list[Path]) -> None:
    groups, warnings = group_runs([read(path) for path in runs])
    assert [(group.name, list(group.runs)) for group in groups] == [
        ("fixmatch", [0, 1]),
        ("fedavg", [0, 1]),
    ]
    assert warnings == []
    assert differences(groups) == {"method.name": ["fixmatch", "fedavg"]}


def test_means_have_t_intervals(runs: list[Path]) -> None:
    # 0.5 and 0.7: mean 0.6, s = 0.141421, t(0.975, 1) = 12.7062: half = 1.27062.
    groups, _ = group_runs([read(path) for path in runs])
    assert result_rows(groups, "final") == [("accuracy", ["60.0 ± 127.1% (n = 2)", "75.0 ± 190.6% (n = 2)"])]


def test_the_page_pairs_equal_seeds(runs: list[Path], tmp_path: Path) -> None:
    page = compare(runs, tmp_path / "both")
    text = page.read_text()
    assert page == tmp_path / "both" / "report.html"
    # Differences 0.1 and 0.2: mean 0.15, half = 12.7062 * 0.0707107 / sqrt(2) = 0.635310.
    assert "fedavg minus fixmatch" in text
    assert "+15.0 points" in text
    assert "-48.5 points to +78.5 points" in text
    assert "http" not in text.replace("http-equiv", "")


def test_other_seeds_are_not_paired(runs: list[Path], tmp_path: Path) -> None:
    page = compare(runs[:3], tmp_path / "three.html")
    assert page == tmp_path / "three.html"
    assert "Paired differences" not in page.read_text()


def test_a_doubled_seed_counts_once(runs: list[Path], make_run: Callable[..., Path]) -> None:
    twice = make_run("again", method="fixmatch", seed=0, rounds=2)
    groups, warnings = group_runs([read(path) for path in [*runs, twice]])
    assert [len(group.runs) for group in groups] == [2, 2]
    assert warnings == [f"{twice} repeats {runs[0]} (seed 0): left out."]


def test_options_name_groups_of_one_method(make_run: Callable[..., Path]) -> None:
    made = [make_run(f"r{lr}", rounds=1, options={"lr": lr}) for lr in (0.1, 0.2)]
    groups, _ = group_runs([read(path) for path in made])
    assert [group.name for group in groups] == ["lr=0.1", "lr=0.2"]


def test_curves_are_means_over_seeds(runs: list[Path]) -> None:
    groups, _ = group_runs([read(path) for path in runs])
    figure = curves_figure(groups, "accuracy")
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["fixmatch", "fedavg"]
    records = [read(path).records for path in runs[:2]]
    mean = [50 * sum(r[i]["test"]["accuracy"] for r in records) for i in (0, 1)]
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx(mean)


def test_the_band_of_a_share_ends_where_shares_end(runs: list[Path]) -> None:
    for path, accuracy in zip(runs, (0.05, 0.95, 0.05, 0.95), strict=True):
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            line["test"]["accuracy"] = accuracy
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups, _ = group_runs([read(path) for path in runs])
    figure = curves_figure(groups, "accuracy")
    assert figure is not None
    for band in figure.axes[0].collections:
        heights = band.get_paths()[0].vertices[:, 1]
        assert (min(heights), max(heights)) == (0, 100)


def test_settings_with_other_splits_are_named(runs: list[Path], tmp_path: Path) -> None:
    told = "so differences are of these too (seed 1): fixmatch; fedavg."
    for path, split in zip(runs, ("a", "b", "a", "b"), strict=True):
        summary = json.loads((path / "summary.json").read_text())
        (path / "summary.json").write_text(json.dumps({**summary, "split_sha256": split}))
    assert told not in compare(runs, tmp_path / "same").read_text()
    summary = json.loads((runs[3] / "summary.json").read_text())
    (runs[3] / "summary.json").write_text(json.dumps({**summary, "split_sha256": "c"}))
    assert told in compare(runs, tmp_path / "other").read_text()


def test_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one run directory"):
        compare([], tmp_path)


def test_runs_of_the_clients_own_models_are_compared(make_personal_run: Callable[..., Path], tmp_path: Path) -> None:
    made = [make_personal_run(f"r{lr}", options={"lr": lr}, lift=lr) for lr in (0.0, 0.1)]
    text = compare(made, tmp_path / "both").read_text()
    # 0.85 + lift - 0.6 exp(-3) in the last round of 12.
    assert "Highest final test accuracy, clients&#39; own models: lr=0.1, 92.0% (n = 1)" in text
    assert "Test scores of the clients&#39; own models" in text


def test_a_metric_that_all_have_is_compared(
    make_run: Callable[..., Path], make_personal_run: Callable[..., Path]
) -> None:
    both = [make_run("both", options={"lr": 1}), make_personal_run("own", options={"lr": 2})]
    assert common_metric(group_runs([read(path) for path in both])[0]) == "personal_accuracy"
    assert common_metric(group_runs([read(both[0])])[0]) == "accuracy"


@pytest.fixture
def unlike(make_run: Callable[..., Path], make_personal_run: Callable[..., Path]) -> list[Path]:
    """A run of the clients' own models alone, and one of a global model alone with client scores 0.5 and 0.7."""
    own, shared = make_personal_run("own", options={"lr": 1}, rounds=2), make_run("shared", options={"lr": 2}, rounds=2)
    records = [json.loads(line) for line in (shared / "metrics.jsonl").read_text().splitlines()]
    del records[-1]["test"]["personal_accuracy"]
    (shared / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = [{"round": r, "client": c, "accuracy": 0.3 + 0.1 * r + 0.2 * c} for r in (1, 2) for c in (0, 1)]
    pd.DataFrame(rows).to_parquet(shared / "clients.parquet")
    summary = json.loads((shared / "summary.json").read_text())
    del summary["final"]["personal_accuracy"]
    (shared / "summary.json").write_text(json.dumps(summary))
    return [own, shared]


@pytest.mark.parametrize("first", [0, 1])
def test_a_global_models_client_mean_stands_beside_the_clients_own(
    unlike: list[Path], tmp_path: Path, first: int
) -> None:
    ordered = [unlike[first], unlike[1 - first]]
    groups, _ = group_runs([read(path) for path in ordered])
    assert common_metric(groups) == "personal_accuracy"
    baseline = groups[1 - first]
    # (0.5 + 0.7) / 2 in round 2, (0.4 + 0.6) / 2 in round 1.
    assert values_by_seed(baseline, "personal_accuracy", "final") == {0: pytest.approx(0.6)}
    figure = curves_figure(groups, "personal_accuracy")
    assert figure is not None
    assert list(figure.axes[0].lines[1 - first].get_ydata()) == pytest.approx([50, 60])
    text = compare(ordered, tmp_path / "both").read_text()
    assert "lr=2 has no models of the clients&#39; own" in text
    assert "60.0% (n = 1)" in text


def test_a_setting_without_a_curve_is_left_out_of_the_panel(unlike: list[Path]) -> None:
    groups, _ = group_runs([read(path) for path in unlike])
    figure = curves_figure(groups, "accuracy")
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines] == ["lr=2"]
    assert values_by_seed(groups[0], "accuracy", "final") == {}
    assert kinds_figure(groups, "accuracy") is None
