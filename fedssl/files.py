"""Writing that survives a kill and a full disk: a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path, PurePath


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; what stood there before stays. Raises OSError that names the path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise named(error, path) from error
        raise


def append_line(path: Path, line: str) -> None:
    """Append one line, which survives a kill; one that could not be written whole is cut off again.

    It survives a power cut only after `sync`. Raises OSError that names the path.
    """
    try:
        size = path.stat().st_size if path.exists() else 0
        # Unbuffered, so that closing the file cannot write again what was cut off.
        with open(path, "ab", buffering=0) as file:
            try:
                rest = memoryview(f"{line}\n".encode())
                while rest:
                    rest = rest[file.write(rest) :]
            except BaseException:
                os.ftruncate(file.fileno(), size)
                raise
    except OSError as error:
        raise named(error, path) from error


def sync(path: Path) -> None:
    """Put what was appended to a file on the disk. Raises OSError that names the path."""
    try:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise named(error, path) from error


def named(error: OSError, path: Path) -> OSError:
    """Give the same error with the path in its text, which a failed write leaves out."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def expanded(path: str | Path) -> Path:
    """Return a path with its leading `~` expanded; where no home is known, the `~` is part of the file's name."""
    return Path(os.path.expanduser(path))


def is_hidden(path: PurePath) -> bool:
    """Say whether a path is, or lies in, what a file manager hides: a name with a leading dot, or a Mac's `__MACOSX`.

    Ask of a path below the folder that the user named, which may be hidden itself.
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def printable(name: str) -> str:
    """Return a file name as text that can be encoded: bytes that are no UTF-8 become `\\xe9` and the like."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def sha256_of(path: Path) -> str:
    """Give the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
