"""Runs clients one after another in this process: for debugging and tests."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flwr.app import Message, RecordDict

from clients.app import create_app
from simulations.engine import internals
from simulations.engine.grid import Answer, ClientTask


class InlineExecutor:
    """Calls the ClientApp directly."""

    num_workers = 1

    def __init__(self, num_clients: int) -> None:
        self.num_clients = num_clients
        self.app = create_app()

    def run(self, tasks: list[ClientTask], timeout: float) -> Iterator[Answer]:
        """Run the tasks in order; those not begun in time are answered for by an error."""
        end = time.monotonic() + timeout
        for task in tasks:
            if time.monotonic() > end:
                reply = internals.error_reply(task.message, "not begun within the deadline")
                yield Answer(task.client_id, reply, None)
            else:
                yield Answer(task.client_id, *call(self.app, task, self.num_clients))

    def close(self) -> None:
        """Do nothing: there are no other processes."""


def call(app: object, task: ClientTask, num_clients: int) -> tuple[Message, RecordDict | None]:
    """Run one client; its new state counts only if the call succeeded."""
    state = task.state.copy()
    context = internals.client_context(task.client_id, num_clients, state)
    try:
        return app(task.message, context), context.state  # type: ignore[operator]
    except SystemExit as error:
        # Let through, it would end the run without a word, and with code 0 as if it were done.
        return internals.error_reply(task.message, f"the client's code ended with SystemExit: {error}"), None
    except Exception as error:
        return internals.error_reply(task.message, str(error)), None
