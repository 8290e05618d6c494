"""Standard output and error that outlast their reader: `fedssl run | head -1` ends the reader, not the run."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FILTERS = ("list", "help", "--version")
"""Commands that only print: one whose reader has seen enough says nothing of it."""


class Outlet(io.FileIO):
    """An open descriptor whose writes never fail: from the first that does, they are dropped."""

    def __init__(self, number: int, lost: Callable[[OSError], object]) -> None:
        super().__init__(number, "w", closefd=False)
        self._lost: Callable[[OSError], object] | None = lost

    def write(self, data: Buffer, /) -> int:
        """Write, or drop; `lost` hears of the first failure."""
        if self._lost is not None:
            try:
                return super().write(data)
            except OSError as error:
                lost, self._lost = self._lost, None
                lost(error)
        return memoryview(data).nbytes


def outlast_readers(argv: Sequence[str]) -> None:
    """Let this process go on when nobody reads its standard output or error, or it has none."""
    quiet = not argv or argv[0] in _FILTERS or "-h" in argv or "--help" in argv
    sys.stdout = _stream(sys.stdout, 1, _nothing if quiet else _tell)
    sys.stderr = _stream(sys.stderr, 2, _nothing)


def _tell(error: OSError) -> None:
    print(
        f"fedssl: nobody reads the output any more ({error.strerror}); going on without it", file=sys.stderr, flush=True
    )


def _nothing(error: OSError) -> None:
    del error


def _stream(before: TextIO | None, number: int, lost: Callable[[OSError], object]) -> TextIO:
    """Return a stream to a descriptor that drops what cannot be written, and escapes what cannot be encoded."""
    if before is None:
        _occupy(number)
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(before, io.TextIOWrapper):
        return before
    before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Outlet(number, lost)),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def _occupy(number: int) -> None:
    """Keep a closed descriptor from becoming that of a data file, which a library would then print into."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)
