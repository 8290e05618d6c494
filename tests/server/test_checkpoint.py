"""Tests of server.checkpoint."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from fedssl import files
from fedssl.federation import ServerState
from server.checkpoint import CheckpointError, Snapshot, load, save

FILES = ("model.safetensors", "extra.safetensors", "aggregator.safetensors", "memory.safetensors", "snapshot.json")


def snapshot(round_: int) -> Snapshot:
    weight = torch.arange(4.0) + round_
    return Snapshot(
        round_,
        ServerState({"w": weight, "n": torch.tensor(round_)}, {"temperature": torch.tensor(1.5, dtype=torch.float64)}),
        {"m_t/w": torch.ones(4)},
        {
            0: {"teacher": torch.ones(2), "a/b": torch.zeros(1), "rounds": round_, "rate": 0.1, "phase": "x"},
            12: {"k": 1},
        },
        {"elapsed": 0.1 + round_, "holders": [0, 12]},
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_snapshot_comes_back(tmp_path: Path):
    save(tmp_path, snapshot(3))
    found, refused = load(tmp_path)
    sent = snapshot(3)
    assert refused == []
    assert (found.round_, found.progress) == (3, {"elapsed": 3.1, "holders": [0, 12]})
    assert torch.equal(found.server.model["w"], sent.server.model["w"])
    assert found.server.model["n"].dtype == torch.int64
    assert found.server.extra["temperature"].item() == 1.5
    assert found.server.extra["temperature"].dtype == torch.float64
    assert found.aggregator["m_t/w"].tolist() == [1.0] * 4
    assert found.memories[12] == {"k": 1}
    assert found.memories[0].pop("teacher").tolist() == [1.0, 1.0]
    assert found.memories[0].pop("a/b").tolist() == [0.0]
    assert found.memories[0] == {"rounds": 3, "rate": 0.1, "phase": "x"}


def test_the_order_of_names_comes_back(tmp_path: Path):
    model = {"z": torch.zeros(1), "a": torch.zeros(9), "m": torch.tensor(1)}
    save(tmp_path, Snapshot(1, ServerState(model)))
    assert list(load(tmp_path)[0].server.model) == ["z", "a", "m"]


def test_tensors_that_share_memory_are_saved(tmp_path: Path):
    shared = torch.arange(3.0)
    save(tmp_path, Snapshot(1, ServerState({"a": shared, "b": shared, "c": shared[:2]})))
    model = load(tmp_path)[0].server.model
    assert (model["a"].tolist(), model["b"].tolist(), model["c"].tolist()) == ([0, 1, 2], [0, 1, 2], [0, 1])


def test_the_two_newest_are_kept(tmp_path: Path):
    for round_ in (1, 2, 9, 10):
        save(tmp_path, snapshot(round_))
    assert names(tmp_path) == ["round-000009", "round-000010"]
    assert load(tmp_path)[0].round_ == 10


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "gone", "flipped"])
def test_a_damaged_snapshot_is_named_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str):
    save(tmp_path, snapshot(1))
    save(tmp_path, snapshot(2))
    path = tmp_path / "round-000002" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:-3], "empty": b"", "flipped": flipped}[damage])
    found, refused = load(tmp_path)
    assert found.round_ == 1
    assert torch.equal(found.server.model["w"], snapshot(1).server.model["w"])
    assert len(refused) == 1
    assert refused[0].startswith("checkpoint round-000002 refused: ")


def test_every_flipped_byte_of_the_description_is_seen(tmp_path: Path):
    save(tmp_path, snapshot(2))
    path = tmp_path / "round-000002" / "snapshot.json"
    content = path.read_bytes()
    for i in range(0, len(content), 7):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        with pytest.raises(CheckpointError, match="round-000002 refused"):
            load(tmp_path)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, snapshot(1))
    monkeypatch.setattr("server.checkpoint.FORMAT", 3)
    with pytest.raises(CheckpointError, match="format 2 is not 3"):
        load(tmp_path)


def test_without_any_whole_snapshot_all_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load(tmp_path / "none")
    for round_ in (1, 2):
        save(tmp_path, snapshot(round_))
        (tmp_path / f"round-00000{round_}" / "snapshot.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match=r"round-000002 refused: .*; checkpoint round-000001 refused: "):
        load(tmp_path)


@pytest.mark.parametrize("at", range(len(FILES)))
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_at_any_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, failure: BaseException
):
    save(tmp_path, snapshot(1))
    save(tmp_path, snapshot(2))
    done: list[int] = []

    def fsync(number: int) -> None:
        done.append(number)
        if len(done) > at:
            raise failure

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(type(failure)) as caught:
        save(tmp_path, snapshot(3))
    if isinstance(failure, OSError):
        assert str(tmp_path) in str(caught.value)
        assert FILES[at] in str(caught.value)
    assert names(tmp_path) == ["round-000001", "round-000002"]
    assert load(tmp_path)[0].round_ == 2


def test_a_snapshot_left_half_written_by_a_kill_is_no_snapshot(tmp_path: Path):
    save(tmp_path, snapshot(1))
    (tmp_path / ".round-000002.partial").mkdir()
    (tmp_path / ".round-000002.partial" / "model.safetensors").write_bytes(b"half")
    assert load(tmp_path)[0].round_ == 1
    save(tmp_path, snapshot(2))
    assert load(tmp_path)[0].round_ == 2
    assert names(tmp_path) == ["round-000001", "round-000002"]
