"""Folders and files that one command alone writes to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedssl.config import ConfigError


def new_folder(base: Path) -> Path:
    """Make `base`, or else `base-2`, `base-3` and so on: the first that was not there. Raises ConfigError on `out`.

    Commands that begin at the same moment never get the same folder.
    """
    path, number = base, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = base.with_name(f"{base.name}-{number}")
        except OSError as error:
            raise _cannot(path, error) from None
        else:
            return path


def made(path: Path) -> Path:
    """Make a folder that the user chose, if it is missing. Raises ConfigError on `out`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(path, error) from None
    return path


def _cannot(path: Path, error: OSError) -> ConfigError:
    return ConfigError("out", str(path), f"a folder that can be made ({error.strerror})")


@contextmanager
def sole_writer(path: Path, field: str = "out") -> Iterator[None]:
    """Keep other processes from writing to a folder, or to a file that is to be. Raises ConfigError on `field`.

    The lock ends with the process, however that ends; file systems without locks get none.
    """
    folder = path.is_dir()
    place = path if folder else path.with_name(f".{path.name}.lock")
    number = os.open(place, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT)
    try:
        if not _lock(number) or not _is_open(place, number):
            raise ConfigError(field, str(path), "a place that no other process writes to at this moment")
        try:
            yield
        finally:
            if not folder:
                place.unlink(missing_ok=True)
    finally:
        os.close(number)


def _lock(number: int) -> bool:
    """Lock an open file or folder until it is closed; False if another process has locked it."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_open(place: Path, number: int) -> bool:
    """Say whether the file at a place is still the one that was opened: its last writer may have removed it."""
    with contextlib.suppress(OSError):
        return os.path.samestat(place.stat(), os.fstat(number))
    return False
