"""Tests of server.journal and server.summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from fedssl.federation import ServerState
from server.journal import Journal, plain
from server.summary import memories_sha256, summarise, weights_sha256


def record(number: int, accuracy: float | None = 0.5, **more: Any) -> dict[str, Any]:
    scores = {} if accuracy is None else {"accuracy": accuracy}
    return {
        "round": number,
        "seconds": float(number),
        "elapsed": 10.0 * number,
        "bytes_up": 3,
        "bytes_down": 4,
        "test": {"accuracy": 0.9, "ece": 0.1} if scores else {},
        "validation": scores,
        "clients": {0: {"accuracy": 0.2}, 2: {"accuracy": 0.6}} if scores else {},
        **more,
    }


def journal(directory: Path, *records: dict[str, Any]) -> Journal:
    made = Journal(directory)
    for item in records:
        made.append(item)
    return made


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_record_becomes_one_line(tmp_path: Path):
    trace = "Traceback\n  a line\u2028\n" * 500
    journal(tmp_path, record(1, failed={3: trace}), record(2))
    assert [line["round"] for line in lines(tmp_path)] == [1, 2]
    assert lines(tmp_path)[0]["failed"] == {"3": trace}


def test_values_become_jsons_own():
    given = {1: np.float32(0.5), "a": [float("nan"), np.int64(3), float("-inf")], "t": (torch.tensor(2.0), None, True)}
    assert plain(given) == {"1": 0.5, "a": [None, 3, None], "t": [2.0, None, True]}


def test_a_nan_is_written_as_null(tmp_path: Path):
    journal(tmp_path, record(1, float("nan")))
    assert lines(tmp_path)[0]["validation"] == {"accuracy": None}


def test_a_cut_keeps_the_first_rounds_and_drops_a_torn_last_line(tmp_path: Path):
    journal(tmp_path, record(1), record(2), record(3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "test"')
    again = Journal(tmp_path)
    again.cut(2)
    assert [item["round"] for item in again.records] == [1, 2]
    again.append(record(3, 0.75))
    assert [line["round"] for line in lines(tmp_path)] == [1, 2, 3]
    assert lines(tmp_path)[2]["validation"]["accuracy"] == 0.75


def test_a_cut_to_nothing_leaves_an_empty_file(tmp_path: Path):
    again = journal(tmp_path, record(1))
    again.cut(0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_journal_that_lacks_rounds_is_refused(tmp_path: Path):
    again = journal(tmp_path, record(1))
    with pytest.raises(ValueError, match="has 1 rounds, but a checkpoint was taken after 2"):
        again.cut(2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("{torn\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: "):
        again.cut(2)
    (tmp_path / "metrics.jsonl").write_text('{"round": 1}\n{"round": 3}\n')
    with pytest.raises(ValueError, match="line 2 is not round 2"):
        again.cut(2)


def test_best_is_the_first_of_the_highest_on_validation(tmp_path: Path):
    made = journal(tmp_path, record(1, 0.4), record(2, 0.7), record(3, None), record(4, 0.7), record(5, float("nan")))
    best, last = made.best("accuracy"), made.last()
    assert best is not None
    assert last is not None
    assert (best["round"], last["round"]) == (2, 5)
    assert made.best("map50") is None
    assert Journal(tmp_path / "other").last() is None


def test_clients_are_one_row_a_client_and_evaluation(tmp_path: Path):
    made = journal(tmp_path, record(1), record(2, None), record(3))
    made.write_clients({"num_test": [5, 6, 7]})
    table = pd.read_parquet(tmp_path / "clients.parquet")
    assert table[["round", "client", "num_test"]].to_numpy().tolist() == [[1, 0, 5], [1, 2, 7], [3, 0, 5], [3, 2, 7]]
    assert table["accuracy"].tolist() == [0.2, 0.6, 0.2, 0.6]


def test_a_run_without_rounds_has_an_empty_table(tmp_path: Path):
    Journal(tmp_path).write_clients({"num_test": [5]})
    assert list(pd.read_parquet(tmp_path / "clients.parquet").columns) == ["round", "client", "num_test"]


def test_a_summary_adds_up(tmp_path: Path):
    made = journal(tmp_path, record(1, 0.4), record(2, 0.6), record(3, 0.5))
    found = summarise(toys.experiment(seed=5), made, "accuracy", {"status": "done"})
    assert found["final"] == {"round": 3, "accuracy": 0.9, "ece": 0.1}
    assert found["best"]["round"] == 2
    assert (found["bytes_up"], found["bytes_down"]) == (9, 12)
    assert (found["wall_seconds"], found["seconds_per_round"]) == (30.0, 2.0)
    assert found["clients"]["mean"] == pytest.approx(0.4)
    assert (found["clients"]["min"], found["clients"]["max"]) == (0.2, 0.6)
    assert (found["rounds"], found["seed"], found["status"], found["method"]) == (3, 5, "done", "toy")


def test_a_summary_of_nothing(tmp_path: Path):
    found = summarise(toys.experiment(), Journal(tmp_path), "accuracy", {})
    assert (found["final"], found["best"], found["clients"], found["wall_seconds"]) == ({}, {}, {}, 0.0)


def test_hashes_depend_on_all_of_a_state_and_not_on_its_order():
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3])
    base = weights_sha256(ServerState({"a": one, "b": two}))
    assert base == weights_sha256(ServerState({"b": two, "a": one}))
    others = [
        ServerState({"a": one, "b": two}, {"t": one}),
        ServerState({"a": one.double(), "b": two}),
        ServerState({"a": one[None], "b": two}),
        ServerState({"a": -one, "b": two}),
        ServerState({"a": one}, {"b": two}),
    ]
    assert len({base, *(weights_sha256(server) for server in others)}) == 6
    assert memories_sha256({2: "x", 1: "y"}) == memories_sha256({1: "y", 2: "x"}) != memories_sha256({1: "x", 2: "y"})


def test_bytes_that_are_no_text_after_the_checkpoint_are_cut_off(tmp_path: Path):
    made = journal(tmp_path, record(1))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\x00")
    made.cut(1)
    assert [line["round"] for line in lines(tmp_path)] == [1]
