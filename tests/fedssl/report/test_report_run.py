"""Reading a run directory, whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedssl.config import ConfigError
from fedssl.report.run import clients_table, curve, last_by_client, read, rounds_table
from fedssl.report.split import read_split


def test_a_cut_last_line_is_ignored(make_run: Callable[..., Path]) -> None:
    directory = make_run(rounds=3)
    with (directory / "metrics.jsonl").open("a") as journal:
        journal.write('{"round": 4, "test": {"accur')
    assert [record["round"] for record in read(directory).records] == [1, 2, 3]


def test_a_broken_middle_line_is_named(make_run: Callable[..., Path]) -> None:
    directory = make_run(rounds=1)
    path = directory / "metrics.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ConfigError, match=r"line 1 is not"):
        read(directory)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report=.*metrics.jsonl and config.yaml"):
        read(tmp_path)


def test_a_resumed_round_counts_once(make_run: Callable[..., Path]) -> None:
    directory = make_run(rounds=2)
    with (directory / "metrics.jsonl").open("a") as journal:
        journal.write(json.dumps({"round": 2, "test": {"accuracy": 0.25}}) + "\n")
    table = rounds_table(read(directory).records)
    assert curve(table, "test", "accuracy")[2] == 0.25
    assert len(curve(table, "test", "accuracy")) == 2


def test_nulls_leave_no_row() -> None:
    records = [{"round": 1, "seconds": None, "test": {"accuracy": None, "loss": 2.0}, "train": None}]
    table = rounds_table(records)
    assert table.to_numpy().tolist() == [[1, "test", "loss", 2.0]]


def test_clients_come_from_the_journal_without_parquet(make_run: Callable[..., Path]) -> None:
    directory = make_run(rounds=2, clients=3)
    stored = last_by_client(clients_table(read(directory)), "personal_accuracy")
    (directory / "clients.parquet").unlink()
    rebuilt = last_by_client(clients_table(read(directory)), "personal_accuracy")
    assert rebuilt.to_dict() == stored.to_dict()
    assert list(rebuilt.index) == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"PAR1 no table PAR1"])
def test_damaged_files_are_named(make_run: Callable[..., Path], content: bytes) -> None:
    directory = make_run()
    for name, act in (
        ("clients.parquet", lambda: clients_table(read(directory))),
        ("split.npz", lambda: read_split(directory / "split.npz")),
        ("config.yaml", lambda: read(directory)),
    ):
        (directory / name).write_bytes(content)
        with pytest.raises(ConfigError, match=rf"^report='.*{name}'"):
            act()
