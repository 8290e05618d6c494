"""Decode a data set once, to memory maps that all processes share."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.arrays import dataset_key
from fedssl.data.base import Dataset, DataSource, Samples
from fedssl.files import expanded

_ARRAYS = ("x", "y", "group")
_OF_SCENES = ("boxes", "box_class", "box_offsets", "domain", "annotated")
_LISTS = ("class_names", "mean", "std", "server_groups", "group_names", "domain_names", "warnings")
_FORMAT = 4
_ATTEMPTS = 5


def cache_directory() -> Path:
    """Return the cache folder: the environment's FEDSSL_CACHE, else ~/.cache/fedssl.

    Raises ConfigError where that needs a home and nobody knows one, as for a container's user without a name.
    """
    given = os.environ.get("FEDSSL_CACHE", "")
    folder = expanded(given or "~/.cache/fedssl")
    if str(folder).startswith("~") or (not given and os.environ.get("HOME") == ""):
        raise ConfigError(
            "FEDSSL_CACHE", given, "the path of a folder to keep decoded data in, as there is no home here"
        )
    return folder


def open_dataset(source: DataSource, cache: Path | None = None) -> Dataset:
    """Return the source's data set with its arrays as read-only memory maps, decoded on first use.

    Raises ConfigError when the source cannot be read or the cache folder cannot be written.
    """
    root = cache_directory() if cache is None else Path(cache)
    key = dataset_key(source)
    for _ in range(_ATTEMPTS):
        found = _open(root / key, key)
        if found is not None:
            return found
        dataset = replace(source.read(), key=key)
        replace_whole(root / key, partial(_write, dataset))
    raise ConfigError("FEDSSL_CACHE", str(root), "a folder whose files can be read back")


def replace_whole(target: Path, write: Callable[[Path], object], field: str = "FEDSSL_CACHE") -> None:
    """Let `write` fill a new file or folder, then put it in the place of `target`.

    A folder there before is moved away. Raises ConfigError on `field`, which names the
    folder, on failure.
    """
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        write(work / "made")
        if target.is_dir():
            _move_away(target, work / "old")
        _move_in(work / "made", target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(field, str(target.parent), f"a folder that can be written to ({reason})") from None
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _move_away(target: Path, place: Path) -> None:
    try:
        target.rename(place)
    except FileNotFoundError:
        return  # another process was faster


def _move_in(made: Path, target: Path) -> None:
    try:
        os.replace(made, target)
    except OSError:
        if not target.is_dir():  # a folder there now is another process's, equal to ours
            raise


def _write(dataset: Dataset, folder: Path) -> None:
    folder.mkdir()
    seals = {}
    for part, samples in (("train", dataset.train), ("test", dataset.test)):
        for name in (*_ARRAYS, *(_OF_SCENES if samples.holds_boxes else ())):
            file = folder / f"{part}_{name}.npy"
            with file.open("wb") as stream:
                np.save(stream, np.ascontiguousarray(getattr(samples, name)), allow_pickle=False)
                stream.flush()
                os.fsync(stream.fileno())
            seals[file.name] = seal(file)
    meta = {
        "format": _FORMAT,
        "key": dataset.key,
        "name": dataset.name,
        "class_names": dataset.class_names,
        "mean": dataset.mean,
        "std": dataset.std,
        "limit": dataset.limit,
        "server_groups": dataset.server_groups,
        "group_names": dataset.group_names,
        "rate_hz": dataset.rate_hz,
        "domain_names": dataset.domain_names,
        "warnings": dataset.warnings,
        "seals": seals,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _open(folder: Path, key: str) -> Dataset | None:
    """Return the stored data set, or None if it is missing, damaged or being replaced."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != _FORMAT or meta["key"] != key:
            return None
        train, test = (_open_samples(folder, part, meta["seals"]) for part in ("train", "test"))
        lists = {name: tuple(meta[name]) for name in _LISTS}
        return Dataset(meta["name"], train, test, **lists, key=key, limit=meta["limit"], rate_hz=meta["rate_hz"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_samples(folder: Path, part: str, seals: dict[str, list[int]]) -> Samples:
    files = {name: folder / f"{part}_{name}.npy" for name in (*_ARRAYS, *_OF_SCENES)}
    stored = {name: file for name, file in files.items() if name in _ARRAYS or file.name in seals}
    return Samples(**{name: _map(file, seals[file.name]) for name, file in stored.items()})


def _map(file: Path, sealed: list[int]) -> NDArray[Any]:
    if not intact(file, sealed):
        raise ValueError(f"{file} is damaged")
    # As a plain array: numpy's memmap class slows down every slice.
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def seal(file: Path) -> list[int]:
    """Return what tells later whether a file is as it is now: its CRC-32 and time of change in ns."""
    return [_checksum(file), file.stat().st_mtime_ns]


def intact(file: Path, sealed: list[int]) -> bool:
    """Say whether a file is as it was sealed; it is read only where its time of change is another one.

    A file of the same time may be cut, which numpy finds. Raises OSError when it is not there.
    """
    checksum, changed = sealed
    return file.stat().st_mtime_ns == changed or _checksum(file) == checksum


def _checksum(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
