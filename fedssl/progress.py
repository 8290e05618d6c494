"""Progress of long-running server work, reported to an optional listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(to: Listener) -> Iterator[None]:
    """Call `to` with the name, the parts done and the total of each report made within."""
    token = _listener.set(to)
    try:
        yield
    finally:
        _listener.reset(token)


def report_progress(name: str, done: int, total: int) -> None:
    """Report that `done` of `total` parts of a piece of work are done; 0 as it begins."""
    if (listener := _listener.get()) is not None:
        listener(name, done, total)
