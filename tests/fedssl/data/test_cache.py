from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data import cache
from fedssl.data.base import Dataset
from fedssl.data.cache import cache_directory, open_dataset
from fedssl.data.sources.imu_synthetic import ImuSynthetic
from fedssl.data.sources.npz import Npz


@pytest.fixture
def source(tmp_path) -> Npz:
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=np.arange(40) % 2)
    return Npz(path=str(tmp_path / "data.npz"))


def assert_same(left: Dataset, right: Dataset) -> None:
    assert (left.name, left.class_names, left.mean, left.std, left.key) == (
        right.name,
        right.class_names,
        right.mean,
        right.std,
        right.key,
    )
    for part in ("train", "test"):
        for name in ("x", "y", "group"):
            mine = getattr(getattr(left, part), name)
            other = getattr(getattr(right, part), name)
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype


def test_the_second_opening_reads_no_source(source, tmp_path, monkeypatch):
    first = open_dataset(source, tmp_path / "cache")
    assert_same(first, source.read())
    assert not first.train.x.flags.writeable
    monkeypatch.setattr(Npz, "read", lambda _: pytest.fail("decoded again"))
    assert_same(open_dataset(source, tmp_path / "cache"), first)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [first.key]


def test_windows_come_back_with_all_that_is_known_of_them(tmp_path, monkeypatch):
    source = ImuSynthetic(users=2, server_subjects=1, windows=10)
    first = source.read()
    open_dataset(source, tmp_path)
    monkeypatch.setattr(ImuSynthetic, "read", lambda _: pytest.fail("decoded again"))
    found = open_dataset(source, tmp_path)
    assert_same(found, first)
    assert found.train.x.dtype == np.float32
    assert (found.limit, found.server_groups, found.group_names, found.rate_hz) == (1.0, (0,), ("0", "1", "2"), 20.0)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "meta", "json", "all"])
def test_a_damaged_entry_is_rebuilt(damage, source, tmp_path):
    first = open_dataset(source, tmp_path / "cache")
    folder = tmp_path / "cache" / first.key
    victim = folder / "train_x.npy"
    content = victim.read_bytes()
    if damage == "flip":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        victim.write_bytes(content[:-5])
    elif damage == "remove":
        victim.unlink()
    elif damage == "meta":
        (folder / "meta.json").write_text('{"format": 1}')
    elif damage == "json":
        (folder / "meta.json").write_text("[")
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    assert_same(open_dataset(source, tmp_path / "cache"), source.read())


def test_arrays_are_read_to_be_checked_only_if_their_files_were_touched(source, tmp_path, monkeypatch):
    first = open_dataset(source, tmp_path / "cache")
    monkeypatch.setattr(Npz, "read", lambda _: pytest.fail("decoded again"))
    read = []
    checksum = cache._checksum
    monkeypatch.setattr(cache, "_checksum", lambda file: read.append(file.name) or checksum(file))
    assert_same(open_dataset(source, tmp_path / "cache"), first)
    assert read == []
    os.utime(tmp_path / "cache" / first.key / "train_x.npy", (1, 1))
    assert_same(open_dataset(source, tmp_path / "cache"), first)
    assert read == ["train_x.npy"]


def _race(path: str, cache: str, answers) -> None:
    answers.put(int(open_dataset(Npz(path=path), Path(cache)).train.x.sum()))


def test_processes_that_race_all_succeed(source, tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    args = (source.path, str(tmp_path / "cache"), answers)
    processes = [context.Process(target=_race, args=args) for _ in range(2)]
    for process in processes:
        process.start()
    expected = int(source.read().train.x.sum())
    assert [answers.get(timeout=60) for _ in processes] == [expected] * 2
    for process in processes:
        process.join()
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"FEDSSL_CACHE=.*file"):
        open_dataset(source, tmp_path / "file" / "cache")


def test_cache_directory_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("FEDSSL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "fedssl"
