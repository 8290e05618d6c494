"""Gives the engine that an experiment names, begun before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fedssl.config import Experiment, to_json
from simulations.engine.start import RayStart

if TYPE_CHECKING:
    from server.watcher import Watcher
    from simulations.engine.grid import Executor

Run = Callable[[Experiment, "Watcher", bool], None]
"""Runs an experiment to its end and tells the watcher; the last argument says whether to resume."""


@contextmanager
def begun(experiment: Experiment, *, apart: bool) -> Iterator[Run]:
    """Yield what runs the experiment; with `apart`, or as `engine.start` says, Ray is started before.

    Raises ConfigError, EngineError.
    """
    engine = experiment.engine
    if engine.name == "flower":
        from simulations.engine import flower

        start = RayStart(flower.workers(experiment), engine.address, lambda: None)
        try:
            start.result()
            yield flower.run
        finally:
            start.close()
        return
    if engine.name == "inline" or engine.start == "never":
        from simulations.engine.inline import InlineExecutor

        yield _on(InlineExecutor(experiment.clients))
    elif engine.start == "at_once" or engine.workers or engine.address or apart:
        start = _start(experiment)
        try:
            yield _on(start.result())
        finally:
            start.close()
    else:
        yield from _beside(experiment)


def _beside(experiment: Experiment) -> Iterator[Run]:
    from simulations.engine.handover import HandoverExecutor

    cores = os.cpu_count() or 1
    made = HandoverExecutor(experiment.clients, for_workers(experiment), lambda: _start(experiment), cores)

    def run(experiment: Experiment, watcher: Watcher, resume: bool) -> None:
        made.note, made.warn = watcher.note, watcher.warn
        _on(made)(experiment, watcher, resume)

    try:
        yield run
    finally:
        made.close()


def _start(experiment: Experiment) -> RayStart:
    cpus = max(os.cpu_count() or 1, experiment.engine.workers)
    return RayStart(cpus, experiment.engine.address, lambda: _workers(experiment))


def _workers(experiment: Experiment) -> Executor:
    from simulations.engine.ray import RayExecutor

    return RayExecutor(experiment.clients, for_workers(experiment), experiment.engine.workers)


def _on(executor: Executor) -> Run:
    def run(experiment: Experiment, watcher: Watcher, resume: bool) -> None:
        from server.app import create_app
        from simulations.engine.grid import LocalGrid
        from simulations.engine.internals import server_context

        grid = LocalGrid(experiment.clients, executor)
        grid.on_reply = watcher.client
        create_app(watcher)(grid, server_context(to_json(experiment), resume=resume))

    return run


def for_workers(experiment: Experiment) -> str:
    """Return the JSON that messages will carry, so that a worker warmed with it builds its runtime once."""
    from fedssl.runtime import choose_device, resolve_precision
    from server.app import for_clients

    precision = resolve_precision(experiment.precision, choose_device(experiment.device))
    return to_json(for_clients(replace(experiment, precision=precision)))
