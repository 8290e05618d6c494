"""The page of FedoSSL: made from a table alone, whatever of it is there."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
Made = Mapping[tuple[str, str, str], list[float]]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("fedossl_table")


@pytest.fixture
def long_form(table: ModuleType) -> ModuleType:
    return importlib.import_module("long_form")


def written(path: Path, long_form: ModuleType, made: Made, setting: str = "clients=10") -> Any:
    """A table of `{(method, variant, metric): value of each seed}`, with a best round that must not count."""
    lines = ["study,method,variant,setting,seed,split,round,metric,value"]
    for (method, variant, metric), values in made.items():
        for seed, value in enumerate(values):
            lines.append(f"made,{method},{variant},{setting},{seed},test,last,{metric},{value}")
            lines.append(f"made,{method},{variant},{setting},{seed},test,best,{metric},0.99")
    path.write_text("\n".join(lines) + "\n")
    return long_form.Scores(path)


def lines_of(text: str, name: str) -> list[str]:
    """The line that begins with `name`, and the one below it."""
    lines = text.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith(f"| {name} |")]
    return lines[place : place + 2]


def test_a_cell_gives_mean_and_interval_beside_the_paper(
    table: ModuleType, long_form: ModuleType, tmp_path: Path
) -> None:
    made = {
        ("fedossl", "", "accuracy_unseen"): [0.5, 0.52, 0.54],
        ("orca", "", "accuracy_unseen"): [0.4],
        ("orca", "central", "accuracy_unseen"): [0.6],
        ("orca", "central", "accuracy_locally_unseen"): [0.6],
    }
    text = table.comparison(written(tmp_path / "made.csv", long_form, made), table.MAIN, ("LU", "AU"))
    # t(2) = 4.3027, s = 0.02: 4.3027 x 2 / sqrt(3) = 4.97.
    assert lines_of(text, "FedoSSL") == ["| FedoSSL | here | | 52.0 ± 5.0 |", "| | paper | 90.68 | 64.22 |"]
    assert lines_of(text, "Fed-AO") == ["| Fed-AO | here | | 40.0 |", "| | paper | 89.38 | 52.15 |"]
    assert lines_of(text, "Fed-RO")[0] == "| Fed-RO | here | | |"
    assert lines_of(text, "Cen-O") == ["| Cen-O | here | | 60.0 |", "| | paper | | 71.95 |"]


def test_differences_are_paired_over_the_seeds_that_both_have(
    table: ModuleType, long_form: ModuleType, tmp_path: Path
) -> None:
    made = {
        ("fedossl", "", "accuracy_unseen"): [0.5, 0.6, 0.9],
        ("orca", "", "accuracy_unseen"): [0.48, 0.56],
        ("orca", "local_head", "accuracy_unseen"): [0.53],
    }
    text = table.differences(written(tmp_path / "made.csv", long_form, made))
    # 2 and 4 points: t(1) = 12.706, s = sqrt(2), so 12.706 x 1.
    assert lines_of(text, "FedoSSL - Fed-AO") == [
        "| FedoSSL - Fed-AO | here | | | | | | +3.0 ± 12.7 | |",
        "| | paper | +6.80 | | +3.28 | +1.30 | +17.66 | +12.07 | |",
    ]
    assert lines_of(text, "FedoSSL - Fed-RO")[0] == "| FedoSSL - Fed-RO | here | | | | | | -3.0 | |"


@pytest.mark.parametrize(
    ("before", "after", "begins", "holds"),
    [
        # Gains 1, 2, 3: standard error 1 / sqrt(3).
        ([0.4, 0.5, 0.6], [0.41, 0.52, 0.63], "**AU: reproduced.**", "+2.0 points, standard error 0.6, 3 seeds"),
        ([0.41, 0.51], [0.42, 0.52], "**AU: reproduced.**", "+1.0 points, standard error 0.0"),
        ([0.4, 0.5], [0.409, 0.509], "**AU: not reproduced.**", "+0.9 points"),
        # Gains -4, 8: mean 2, standard error 6.
        ([0.4, 0.5], [0.36, 0.58], "**AU: not reproduced.**", "+2.0 points, standard error 6.0"),
        ([0.4, 0.5], [0.5], "**AU: not decided.**", "two seeds or more"),
        ([], [0.5, 0.6], "**AU: not decided.**", "two seeds or more"),
    ],
)
def test_the_verdict_follows_the_rule(
    table: ModuleType, before: list[float], after: list[float], begins: str, holds: str
) -> None:
    said = table.verdict(dict(enumerate(before)), dict(enumerate(after)), "AU")
    assert said.startswith(begins)
    assert holds in said


def test_the_best_reading_is_named_over_shared_seeds(table: ModuleType, long_form: ModuleType, tmp_path: Path) -> None:
    made = {
        ("fedossl", "cluster+ce", "accuracy_unseen"): [0.5, 0.5],
        # Reading A is the default; its third seed, which the others lack, must not lift it.
        ("fedossl", "", "accuracy_unseen"): [0.51, 0.51, 0.9],
        ("fedossl", "R=B", "accuracy_unseen"): [0.4, 0.4],
        ("fedossl", "R=C", "accuracy_unseen"): [0.52, 0.52],
    }
    said = table.readings(written(tmp_path / "made.csv", long_form, made))
    assert said.startswith("Of the readings of R, C has the highest mean AU, 52.0.")
    assert said.endswith("A +1.0 ± 0.0, B -10.0 ± 0.0, C +2.0 ± 0.0; in the paper +1.24.")


def test_orders_are_computed(table: ModuleType, long_form: ModuleType, tmp_path: Path) -> None:
    made = {
        ("orca", "", "accuracy_all_paper"): [0.5],
        ("orca", "local", "accuracy_all_paper"): [0.3],
        ("fedossl", "", "accuracy_all_paper"): [0.4],
    }
    assert table.order(written(tmp_path / "made.csv", long_form, made), "All") == (
        "Order by All here: Fed-AO > FedoSSL > Local-O; in the paper: Cen-O > FedoSSL > Fed-RO > Fed-AO > Local-O."
    )


@pytest.mark.parametrize("num_seeds", [0, 1, 3])
def test_the_page_is_made_of_any_table(
    table: ModuleType, long_form: ModuleType, tmp_path: Path, num_seeds: int
) -> None:
    made = {("fedossl", "", metric): [0.5, 0.6, 0.7][:num_seeds] for metric in table.METRICS.values()}
    scores = written(tmp_path / "made.csv", long_form, made)
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    table.publish(scores, document, tmp_path)
    once = document.read_text()
    assert once.startswith("before\n<!-- results -->\n## Against the baselines\n")
    assert once.endswith("\n<!-- /results -->\nafter\n")
    assert "nan" not in once
    assert "old" not in once
    means = {0: "", 1: "50.0 ", 3: "60.0 ± 24.8 "}
    assert f"| FedoSSL | here | {means[num_seeds]}| " in once
    assert f"over {num_seeds} seed{'' if num_seeds == 1 else 's'}; the paper's" in once
    assert (tmp_path / "fedossl_cifar10.png").read_bytes().startswith(b"\x89PNG")
    table.publish(scores, document, tmp_path)
    assert document.read_text() == once


def test_fifty_clients_are_a_setting_of_their_own(table: ModuleType, long_form: ModuleType, tmp_path: Path) -> None:
    scores = written(tmp_path / "made.csv", long_form, {("orca", "", "accuracy_seen"): [0.7]}, "clients=50")
    assert "| Fed-AO | here | 70.0 |" in table.comparison(scores, table.FIFTY, ("Seen",), "clients=50")
    assert "| Fed-AO | here | |" in table.comparison(scores, table.MAIN, ("Seen",))


def test_the_runs_of_the_page_are_those_of_the_benchmark(table: ModuleType) -> None:
    """No row stays empty because the two scripts name a run differently."""
    benchmark = importlib.import_module("fedossl_cifar10")
    runs = {(cell.method, cell.variant, cell.setting) for cell in benchmark.cells(1, Path("data"), Path("weights"))}
    ten = {(row.method, row.variant, "clients=10") for row in (*table.MAIN, *table.ABLATION) if row.method}
    assert ten | {(row.method, row.variant, "clients=50") for row in table.FIFTY} == runs
