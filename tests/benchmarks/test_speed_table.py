"""The table of `make bench`: kept after each comparison, one row a cell, G8 among them."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed_table", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "speed_table", module)
    spec.loader.exec_module(module)
    cells = [
        module.Comparison("G1", "one", ["ours"], ["theirs"], 4, 6),
        module.Comparison("G3", "two", ["ours"], ["no"], 1, 2),
    ]
    monkeypatch.setattr(module, "cells", lambda folder: cells)
    return module


def measure(command: list[str]) -> dict[str, Any]:
    if command == ["no"]:
        raise RuntimeError("a side that fails")
    if command[0].endswith("data_path.py"):
        return {"cells": [{"what": "weak", "passes": 4.0, "aim": 6.0, "rows": [[2.0, 7.0], [2.0, 9.0], [2.0, 20.0]]}]}
    return {"round": 2.0 if command == ["ours"] else 10.0}


def table(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, only: str) -> list[dict[str, str]]:
    monkeypatch.setattr(bench, "run", measure)
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", only, "--repeats", "1", "--out", str(out)])
    bench.main()
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_what_was_measured_before_a_failure(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "speed.csv"
    with pytest.raises(RuntimeError, match="a side that fails"):
        table(bench, monkeypatch, out, "G1,G3")
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["goal"], row["ours"], row["theirs"], row["ratio"], row["verdict"]) == ("G1", "2", "10", "5", "pass")


def test_the_data_path_is_in_the_same_table(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "speed.csv"
    table(bench, monkeypatch, out, "G8")
    # The second time replaces the row: 7/2, 9/2, 20/2 have the median 4.5.
    rows = table(bench, monkeypatch, out, "G8")
    assert [(row["goal"], row["what"], row["ratio"], row["verdict"]) for row in rows] == [("G8", "weak", "4.5", "pass")]
    assert [row["goal"] for row in table(bench, monkeypatch, out, "G1")] == ["G1", "G8"]


def test_a_goal_that_is_none_is_refused(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        table(bench, monkeypatch, tmp_path / "speed.csv", "G14")
    assert ended.value.code == 2
    assert "--only G14: must be of G1, G2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_peer_runs_in_its_own_python(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def ended(program: list[str], **options: Any) -> Any:
        commands.append(program)
        assert options["env"]["PYTHONPATH"] == str(FOLDER.parent)
        return SimpleNamespace(returncode=0, stdout='{"round": 2.0}')

    monkeypatch.setattr(bench, "subprocess", SimpleNamespace(run=ended))
    one, two = bench.comparisons({"G4"}, "", 1, tmp_path, "their/python")
    assert [cell.goal for cell in (one, two)] == ["G4", "G4"]
    ours, theirs, *_ = commands
    assert (ours[0], theirs[0]) == (sys.executable, "their/python")
    assert Path(ours[1]).name == "one.py"
    assert Path(theirs[1]).name == "pfl_rounds.py"
    assert ["engine=inline" in ours, "--nproc-per-node=2" in commands[3]] == [True, True]


def test_without_the_peer_its_goal_is_left_out_and_said_so(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(bench.comparisons({"G4"}, "", 1, tmp_path)) == []
    assert "G4 left out: it needs --pfl-python" in capsys.readouterr().out
