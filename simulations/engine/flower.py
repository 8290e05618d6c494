"""Runs an experiment on Flower's own simulation runtime, for parity with its ecosystem."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from clients.app import create_app
from fedssl.config import Experiment, to_json
from server.app import create_app as create_server
from server.watcher import Watcher
from simulations.engine.start import EngineError

POLL_SECONDS = 0.1
"""Flower's own interval."""
END_SECONDS = 5.0
RESOURCES: Any = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}


def run(experiment: Experiment, watcher: Watcher, resume: bool) -> None:
    """Run to the end on the Ray that runs. Raises what the server raised; EngineError if the runtime broke down."""
    text = to_json(experiment)
    stop, ended, interrupted = threading.Event(), threading.Event(), threading.Event()
    failures: list[BaseException] = []
    server = create_server(watcher)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        # run_simulation hands over no run_config, so it is set here.
        context.run_config = {"experiment": text, "resume": resume}
        grid.send_and_receive = _until(stop, interrupted, grid)  # type: ignore[method-assign]
        grid.num_workers = workers(experiment)  # type: ignore[attr-defined]
        try:
            server(grid, context)
        except BaseException as error:
            failures.append(error)
        finally:
            ended.set()

    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_simulation(app, create_app(), num_supernodes=experiment.clients, backend_config=RESOURCES)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            interrupted.set()
        stop.set()
        ended.wait(END_SECONDS)
        if isinstance(error, KeyboardInterrupt):
            raise
        failures.append(EngineError(f"Flower's runtime broke down: {error}"))
    if failures:
        raise failures[0]


def workers(experiment: Experiment) -> int:
    """Return the number of processes that run clients."""
    return experiment.engine.workers or os.cpu_count() or 1


def _until(stop: threading.Event, interrupted: threading.Event, grid: Grid) -> Callable[..., Iterable[Message]]:
    """Give a `send_and_receive` that ends when the runtime has: Flower's own would wait for its timeout."""

    def send_and_receive(messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting = set(grid.push_messages(messages))
        end = time.monotonic() + (timeout if timeout is not None else float("inf"))
        replies: list[Message] = []
        while waiting and time.monotonic() < end:
            if interrupted.is_set():
                raise KeyboardInterrupt
            if stop.is_set():
                raise EngineError("the run was ended while clients were at work")
            found = list(grid.pull_messages(waiting))
            replies.extend(found)
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            if waiting:
                time.sleep(POLL_SECONDS)
        return replies

    return send_and_receive
