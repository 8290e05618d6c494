"""Who sees a run go by: a progress display, loggers, nobody."""

from __future__ import annotations

from typing import Any, Protocol

from fedssl.config import Experiment


class Watcher(Protocol):
    """Sees a run go by: progress display, loggers."""

    def begin(self, experiment: Experiment, first_round: int) -> None:
        """Note that the run begins, before the server's own work."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Note how far the server's work before the rounds has come."""

    def client(self, client_id: int) -> None:
        """Note a client's answer."""

    def round(self, record: dict[str, Any]) -> None:
        """Note a finished round's record."""

    def note(self, line: str) -> None:
        """Show one line of what goes on."""

    def warn(self, line: str) -> None:
        """Show one line that the user must see."""


class Silence:
    """A watcher that shows nothing."""

    def begin(self, experiment: Experiment, first_round: int) -> None:
        """Do nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Do nothing."""

    def client(self, client_id: int) -> None:
        """Do nothing."""

    def round(self, record: dict[str, Any]) -> None:
        """Do nothing."""

    def note(self, line: str) -> None:
        """Do nothing."""

    def warn(self, line: str) -> None:
        """Do nothing."""
