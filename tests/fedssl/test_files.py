"""Tests of fedssl.files."""

from __future__ import annotations

import errno
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest

from fedssl import files


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "a"
    files.write_atomically(path, b"old")
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert files.sha256_of(path) == hashlib.sha256(b"new").hexdigest()
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: '.*a'") as caught:
        files.write_atomically(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error_that_names_the_path(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="gone"):
        files.write_atomically(tmp_path / "gone" / "a", b"")


class Torn(io.FileIO):
    """A file that takes two bytes of what it is given, then fails."""

    failure: BaseException = OSError(errno.ENOSPC, "No space left on device")

    def write(self, data: Any) -> int:
        super().write(bytes(data)[:2])
        raise self.failure


def torn(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    monkeypatch.setattr(Torn, "failure", failure)
    monkeypatch.setattr(files, "open", lambda path, _, buffering: Torn(path, "a"), raising=False)


def test_lines_are_appended_and_a_torn_one_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a"
    files.append_line(path, "one")
    files.append_line(path, "zwei: ü")
    assert path.read_text(encoding="utf-8") == "one\nzwei: ü\n"
    for failure in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):
        torn(monkeypatch, failure)
        with pytest.raises(type(failure)):
            files.append_line(path, "three")
        assert path.read_text(encoding="utf-8") == "one\nzwei: ü\n"


def test_an_append_to_a_full_disk_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torn(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics.jsonl'"):
        files.append_line(tmp_path / "metrics.jsonl", "{}")
