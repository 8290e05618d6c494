"""The runs and the page of FedSTO on road signs: the page is made from a table alone, whatever of it is there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from simulations.compose import compose_experiment

FOLDER = Path(__file__).parents[2] / "benchmarks"
HEAD = "study,method,variant,setting,seed,split,round,metric,value"
WHERE = "clients=3;weather=noniid"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("fedsto_table")


@pytest.fixture
def runs(table: ModuleType) -> ModuleType:
    return importlib.import_module("fedsto_roadsign")


def line(method: str, variant: str, seed: int, metric: str, value: float, at: str = "last") -> str:
    return f"made,{method},{variant},{WHERE},{seed},test,{at},{metric},{value}"


def read(path: Path, lines: list[str]) -> tuple[Any, pd.DataFrame]:
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    rows = pd.read_csv(path, keep_default_na=False, dtype=str)
    return importlib.import_module("long_form").Scores(path), rows


@pytest.mark.slow
def test_every_run_is_there_once_and_composes(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedssl.data.sources.roadsign import RoadSign

    monkeypatch.setattr(RoadSign, "fingerprint", lambda _: "file")
    cells = list(runs.cells(2, tmp_path, tmp_path / "first.safetensors", "noniid"))
    assert len({cell.key for cell in cells}) == len(cells) == 27
    again = list(runs.cells(2, tmp_path, tmp_path / "first.safetensors", "noniid", again=True))
    assert [(cell.key[:2], cell.seed) for cell in again] == [(("fedsto", "again"), seed) for seed in (0, 1)]
    assert again[0].overrides == cells[0].overrides
    for cell in cells:
        made = compose_experiment(cell.overrides)
        clients = 12 if cell.setting.startswith("clients=12") else 3
        epochs = {"central": 90, "warm_up_60": 60}.get(cell.variant, 300)
        assert (made.rounds, made.clients, made.method["warm_up"]) == (40, clients, epochs)
        assert made.data["per_weather"] == clients // 3
        assert made.method["tau2"] == 0.6
        assert (made.method["name"] == "fedsto") == (cell.method == "fedsto")
        assert (made.labels["name"] != "none") == (cell.method == "all_labels")
        assert made.method["server_average"] == (0 if cell.variant == "last_step" else 0.95)
        assert made.method["client_average"] == (0 if cell.variant.endswith("last_step") else 0.95)
        if cell.variant == "selective_only":
            assert made.method["selective_rounds"] == 40


def test_a_rows_own_scores_come_from_the_runs_files(runs: ModuleType, tmp_path: Path) -> None:
    final = {
        "map50": 0.4,
        "map50_total": 0.3,
        **{f"map50_{one}": value for one, value in zip(runs.WEATHERS, (0.1, 0.2, 0.6), strict=True)},
    }
    records = [{"round": 10 * i, "train": {}, "test": {"map50_total": i / 10} if i else {}} for i in range(4)]
    records += [{"round": 40, "train": {"pseudo_precision": 0.5}, "test": {"map50_total": 0.3}}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (tmp_path / "method.json").write_text(json.dumps({"warm_up": {"map50_total": 0.35}, "collapsed": True}))
    summary = {
        "final": final,
        "best": {},
        "directory": str(tmp_path),
        "bytes_up": 1,
        "bytes_down": 2,
        "wall_seconds": 3,
    }
    rows = runs.scores(None, summary)
    found = {name: value for round_, name, value in rows if round_ == "last"}
    assert found["map50_clients"] == pytest.approx(0.3)
    assert found["late_map50_total"] == pytest.approx((0.2 + 0.3 + 0.3) / 3)
    assert "late_map50" not in found
    assert (found["warm_up_map50_total"], found["collapsed"]) == (0.35, 1.0)
    assert ("40", "pseudo_precision", 0.5) in rows
    assert ("40", "map50_total", 0.3) in rows


@pytest.mark.parametrize(("final", "known"), [({"map50_total": 0.3}, True), ({"personal_map50_total": 0.3}, False)])
def test_only_a_global_model_collapses(final: dict[str, float], known: bool, runs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"round": 40, "train": {}, "test": {}}) + "\n")
    (tmp_path / "method.json").write_text(json.dumps({"warm_up": {"map50_total": 0.35}, "collapsed": True}))
    costs = {"bytes_up": 1, "bytes_down": 2, "wall_seconds": 3}
    rows = runs.scores(None, {"final": final, "best": {}, "directory": str(tmp_path), **costs})
    assert (("last", "collapsed", 1.0) in rows) is known


def test_what_made_the_table_names_each_weather(runs: ModuleType) -> None:
    kinds = [("iid", ""), ("iid", "again"), ("noniid", "fedbn"), ("iid", "")]
    rows = [{"setting": f"clients=3;weather={weather}", "variant": variant} for weather, variant in kinds]
    told = runs.commands(rows, 3).split("; ")
    assert [one.rpartition("--weather ")[2] for one in told] == ["noniid", "iid", "iid --again"]
    assert told[0].endswith("--data FOLDER --weights FILE --seeds 3 --weather noniid")


def test_the_page_of_a_table_in_progress(table: ModuleType, tmp_path: Path) -> None:
    weathers = {"cloudy": 0.5, "overcast": 0.4, "rainy": 0.3, "snowy": 0.2}
    lines = [line("fedsto", "", 0, f"map50_{one}", value) for one, value in weathers.items()]
    lines += [line("fedsto", "", seed, "map50_total", 0.35 + seed / 100) for seed in (0, 1)]
    lines += [line("fedsto", "", 0, "warm_up_map50_total", 0.30), line("fedsto", "", 0, "map50_total", 0.2, "5")]
    lines += [line("ssfl", "", seed, "map50_total", 0.33 + seed / 100) for seed in (0, 1)]
    lines += [line("fedsto", "", seed, "late_map50_total", 0.36 + seed / 100) for seed in (0, 1)]
    lines += [line("ssfl", "", seed, "late_map50_total", 0.33 + seed / 100) for seed in (0, 1)]
    lines += [line("fedsto", "", 0, f"personal_map50_{one}", 0.1) for one in ("overcast", "rainy", "snowy")]
    lines += [line("fedsto", "", 0, f"late_personal_map50_{one}", 0.2) for one in ("overcast", "rainy", "snowy")]
    lines += [line("fedsto", "", 0, "late_map50_cloudy", 0.4)]
    lines += [line("ssfl", "fedbn", 0, "personal_map50_total", 0.31)]
    lines += [line("ssfl", "fedbn", 0, "personal_map50_clients", 0.25)]
    scores, rows = read(tmp_path / "made.csv", lines)
    text = table.by_weather(scores, "noniid")
    (line_of,) = (one for one in text.splitlines() if one.startswith("| FedSTO |"))
    assert line_of.startswith("| FedSTO | 50.0 *59.6* | 40.0 *60.7* | 30.0 *59.0* | 20.0 *58.0* | 20.0 *59.3* | 25.0 |")
    assert line_of.endswith("| 35.5 ± 6.4 | 36.5 ± 6.4 | |")
    assert "| snowy | paper's total | late paper's total | total | late total | clients' three |" in text
    # It has no global model: no total, and no difference of totals.
    assert "| SSFL, FedBN (clients' own models) (seed 0) | | | | | | | | | 25.0 |" in text
    assert "FedBN" not in table.gains(scores, "noniid")
    assert "all labels" not in text
    assert "| SSFL, local average | | +2.0 ± 0.0 | +3.0 ± 0.0 | |" in table.gains(scores, "noniid")
    answers = table.questions(scores, "noniid")
    assert "| FedSTO is above SSFL | no runs yet | **yes** +3.0 ± 0.0 |" in answers
    assert "| FedSTO ends above its warm-up | -5.0 | +6.0 |" in answers
    assert "| All labels are above FedSTO | no runs yet | no runs yet |" in answers
    assert table.many(scores, "noniid") == ""
    assert table.course(rows, table.FEDSTO, WHERE, "map50_total")["value"].tolist() == [0.2]
    assert len(table.figure(scores, rows, "noniid").axes) == 2


def test_fedsto_is_paired_with_what_began_with_the_same_weights(table: ModuleType, tmp_path: Path) -> None:
    begun = {("fedsto", ""): 0.30, ("fedsto", "again"): 0.31, ("ssfl", ""): 0.30, ("ssfl", "fedadam"): 0.31}
    ends = dict(zip(begun, (0.40, 0.36, 0.35, 0.35), strict=True))
    lines = [
        line(*key, seed, "warm_up_map50_total", value + seed / 100) for key, value in begun.items() for seed in (0, 1)
    ]
    lines += [line(*key, seed, "map50_total", value) for key, value in ends.items() for seed in (0, 1)]
    scores, _ = read(tmp_path / "made.csv", lines)
    text = table.gains(scores, "noniid")
    assert "| SSFL, local average | | +5.0 ± 0.0 | | |" in text
    assert "| SSFL, FedAdam | | +1.0 ± 0.0 | | |" in text
    assert "| the warm-up | | +9.5 ± 6.4 | | |" in text
    assert "| the warm-up, other first weights | | +4.5 ± 6.4 | | |" in text
    assert table.gains_text(scores, "noniid").endswith("FedSTO's runs from those:\n`SSFL, FedAdam`.")
    text = table.by_weather(scores, "noniid")
    assert "| after the warm-up, other first weights | | | | | | 31.5 ± 6.4 | 31.5 ± 6.4 | 31.5 ± 6.4 | |" in text
    assert "| FedSTO, other first weights | | | | | | | 36.0 ± 0.0 | | |" in text
    scores, _ = read(tmp_path / "made.csv", [one for one in lines if ",again," not in one])
    assert table.gains_text(scores, "noniid") == table.GAINS_TEXT


def test_the_papers_totals_are_the_means_of_its_weathers(table: ModuleType) -> None:
    for row in table.ROWS:
        for paper in (row.noniid, row.iid):
            if paper:
                assert len(paper) == 5
                assert sum(paper[:4]) / 4 == pytest.approx(paper[4], abs=6e-4)


def test_runs_with_many_clients_have_a_table(table: ModuleType, tmp_path: Path) -> None:
    lines = [line("fedsto", "", 0, "map50_total", 0.35), line("fedsto", "", 0, "warm_up_map50_total", 0.3)]
    lines = [one.replace("clients=3", "clients=12") for one in lines]
    scores, _ = read(tmp_path / "made.csv", lines)
    text = table.many(scores, "noniid")
    assert "| after the warm-up | | | | | | 30.0 | 30.0 | 30.0 | |" in text
    assert "| FedSTO | | | | | | | 35.0 | | |" in text


def test_the_document_is_filled(table: ModuleType, tmp_path: Path) -> None:
    lines = [line("fedsto", "", 0, "map50_total", 0.35), line("fedsto", "", 0, "bytes_up", 2e6)]
    lines += [line("fedsto", "", 0, "bytes_down", 3e6), line("fedsto", "", 0, "pseudo_precision", 0.6, "40")]
    read(tmp_path / "made.csv", lines)
    document = tmp_path / "page.md"
    document.write_text("Before\n<!-- results -->\n<!-- /results -->\nAfter\n")
    table.publish(tmp_path / "made.csv", document, tmp_path)
    text = document.read_text()
    assert text.startswith("Before\n")
    assert text.endswith("After\n")
    assert "| FedSTO | 2 | 3 | 60.0 | |" in text
    assert (tmp_path / "fedsto_roadsign_noniid.png").stat().st_size > 0
