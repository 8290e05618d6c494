"""Runs clients on persistent Ray actors: batched, longest first, and again elsewhere when a worker dies."""

from __future__ import annotations

import faulthandler
import math
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from flwr.app import ArrayRecord, Message, RecordDict
from ray.exceptions import RayError

from fedssl.assembly import ALLOW_CODE
from fedssl.wire import filled
from simulations.engine import internals
from simulations.engine.autopsy import ADVICE, Death, autopsy, count_oom_kills
from simulations.engine.grid import Answer, ClientTask
from simulations.engine.start import START_SECONDS, EngineError

LOOK_SECONDS = 15.0
FETCH_SECONDS = 300.0
SMALL_SECONDS = 0.05
MAX_DEATHS = 2


@dataclass(frozen=True)
class Shared:
    """Stands in a parcel for arrays that lie in Ray's store, put there once for all clients."""

    ref: Any


@dataclass(frozen=True)
class Parcel:
    """A task on its way to a worker."""

    client_id: int
    content: dict[str, Any]
    metadata: Any
    state: RecordDict


class Worker:
    """Acts for one client after another; lives as long as the run and keeps its model and data."""

    def __init__(self, num_clients: int, experiment: str) -> None:
        faulthandler.enable(all_threads=False)
        os.environ[ALLOW_CODE] = "1"
        internals.identify()
        from clients import app

        self.num_clients = num_clients
        app.load(experiment)
        self.app = app.create_app()
        self.shared: dict[str, ArrayRecord] = {}

    def ready(self) -> tuple[str, int]:
        """Give node and process id, once the worker can act."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    @ray.method(num_returns=2)  # type: ignore[untyped-decorator]
    def run(self, parcels: list[Parcel]) -> tuple[list[tuple[Message, float]], list[RecordDict | None]]:
        """Run a batch; states come back apart from replies, so that keeping them does not keep the replies."""
        from simulations.engine.inline import call

        replies, states = [], []
        used: dict[str, ArrayRecord] = {}
        for parcel in parcels:
            began = time.perf_counter()
            task = ClientTask(parcel.client_id, self._unpack(parcel, used), parcel.state)
            reply, state = call(self.app, task, self.num_clients)
            changed = state is not None and (len(state) or len(parcel.state))
            replies.append((reply, time.perf_counter() - began))
            states.append(state if changed else None)
        self.shared = used
        return replies, states

    def _unpack(self, parcel: Parcel, used: dict[str, ArrayRecord]) -> Message:
        content = {}
        for name, record in parcel.content.items():
            if isinstance(record, Shared):
                key = record.ref.hex()
                if key not in used:
                    used[key] = self.shared.get(key) or ray.get(record.ref)
                record = used[key]
            content[name] = record
        message: Message = Message(content=filled(RecordDict, content), metadata=parcel.metadata)  # type: ignore[call-overload]
        return message


@dataclass
class _Actor:
    handle: Any
    batch: list[ClientTask] = field(default_factory=list)
    refs: list[Any] = field(default_factory=list)
    process: int = 0
    """Process id if the worker is on this machine, else 0."""


def check_alive(actors: Iterable[_Actor]) -> None:
    """Raise EngineError if a worker here is gone and Ray has not said so: then Ray itself has ended."""
    for actor in actors:
        if actor.process and not os.path.exists(f"/proc/{actor.process}") and os.path.exists("/proc/self"):
            raise EngineError(f"worker process {actor.process} is gone and Ray did not notice: Ray has ended")


class RayExecutor:
    """Hands batches of clients to workers of the Ray that runs; every wait has a deadline."""

    def __init__(self, num_clients: int, experiment: str, workers: int = 0) -> None:
        self.num_clients = num_clients
        self.experiment = experiment
        self.num_workers = workers or max(1, min(num_clients, int(ray.cluster_resources().get("CPU", 1))))
        self.actors: list[_Actor] = []
        self.seconds: dict[int, float] = {}
        self.usual = math.inf
        self.store: dict[int, tuple[ArrayRecord, Shared]] = {}
        self.answered = False
        self.oom_kills = count_oom_kills()
        self.last_death: tuple[Death, frozenset[int]] | None = None
        try:
            self._start([self._spawn() for _ in range(self.num_workers)])
        except BaseException:
            self.close()
            raise

    def run(self, tasks: list[ClientTask], timeout: float) -> Iterator[Answer]:
        """Run the tasks; a client that kills two workers, or is late, is answered for by an error."""
        end = time.monotonic() + timeout
        queue = sorted(tasks, key=self._expected, reverse=True)
        deaths: dict[int, int] = {}
        pending: dict[Any, _Actor] = {}
        packed = {task.client_id: self._pack(task) for task in tasks}
        idle = list(self.actors)
        while queue or pending:
            while queue and idle:
                actor = idle.pop()
                actor.batch = self._take(queue, len(idle) + 1, deaths)
                actor.refs = actor.handle.run.remote([packed[task.client_id] for task in actor.batch])
                pending[actor.refs[0]] = actor
            wait = min(LOOK_SECONDS, max(0.0, end - time.monotonic()))
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=wait)
            if not ready and time.monotonic() >= end:
                yield from self._late(queue, pending)
                self._forget()
                return
            if not ready:
                check_alive(pending.values())
                continue
            actor = pending.pop(ready[0])
            try:
                replies, states = ray.get(actor.refs, timeout=FETCH_SECONDS)
            except RayError as error:
                yield from self._bury(actor, error, queue, deaths)
                idle.append(self.actors[-1])
                continue
            idle.append(actor)
            self.answered = True
            for task, (reply, seconds), state in zip(actor.batch, replies, states, strict=True):
                self.seconds[task.client_id] = seconds
                yield Answer(task.client_id, reply, state)
        known = [self.seconds[task.client_id] for task in tasks if task.client_id in self.seconds]
        self.usual = statistics.median(known) if known else self.usual
        self._forget()

    def close(self) -> None:
        """End the workers."""
        for actor in self.actors:
            ray.kill(actor.handle)
        self.actors = []

    def _expected(self, task: ClientTask) -> float:
        """Give the seconds that the client took last time; an unknown one counts as the last round's middle one."""
        return self.seconds.get(task.client_id, self.usual)

    def _take(self, queue: list[ClientTask], free: int, deaths: dict[int, int]) -> list[ClientTask]:
        """Give the next batch: even shares of small work, single clients of large or suspect work."""
        if deaths or self._expected(queue[0]) > SMALL_SECONDS:
            return [queue.pop(0)]
        count = -(-len(queue) // free)
        # Every `free`-th client, so that long and short ones spread evenly.
        batch = queue[::free][:count]
        del queue[::free]
        return batch

    def _pack(self, task: ClientTask) -> Parcel:
        """Replace arrays that several messages share by a reference into Ray's store."""
        content: dict[str, Any] = {}
        for name, record in task.message.content.items():
            content[name] = self._share(record) if isinstance(record, ArrayRecord) and record else record
        return Parcel(task.client_id, content, task.message.metadata, task.state)

    def _share(self, record: ArrayRecord) -> Shared:
        held = self.store.get(id(record))
        if held is None or held[0] is not record:
            held = (record, Shared(ray.put(record)))
            self.store[id(record)] = held
        return held[1]

    def _forget(self) -> None:
        """Keep the last few arrays only: those of the round that runs."""
        self.store = dict(list(self.store.items())[-4:])

    def _bury(
        self, actor: _Actor, error: RayError, queue: list[ClientTask], deaths: dict[int, int]
    ) -> Iterator[Answer]:
        """Replace a dead worker; its clients run again one by one, but none that killed two."""
        self.actors.remove(actor)
        death = autopsy(actor.process, error, self.oom_kills)
        self.oom_kills = count_oom_kills()
        self._check_others(death, frozenset(task.client_id for task in actor.batch))
        # It may live on after an error of another kind, and would keep its CPU from the new one.
        ray.kill(actor.handle)
        self._start([self._spawn()])
        for task in actor.batch:
            deaths[task.client_id] = deaths.get(task.client_id, 0) + 1
            if deaths[task.client_id] >= MAX_DEATHS:
                reason = f"{death.trace}\nits worker died {MAX_DEATHS} times: {death.line}; {ADVICE}".strip()
                yield Answer(task.client_id, internals.error_reply(task.message, reason), None)
            else:
                queue.append(task)

    def _check_others(self, death: Death, clients: frozenset[int]) -> None:
        """Raise EngineError if workers die alike at one client after the other, before any has answered."""
        last, self.last_death = self.last_death, (death, clients)
        if self.answered or last is None or last[0] != death or last[1] & clients:
            return
        names = " and ".join(str(client) for client in sorted(last[1] | clients))
        line = f"every worker dies at its client (first {names}): {death.line}; {ADVICE}"
        raise EngineError(f"{line}\n{death.trace}".strip())

    def _late(self, queue: list[ClientTask], pending: dict[Any, _Actor]) -> Iterator[Answer]:
        """Answer for all that is not done, and replace the workers that are still at it."""
        busy = list(pending.values())
        for task in [*queue, *(task for actor in busy for task in actor.batch)]:
            self.seconds[task.client_id] = math.inf
            yield Answer(task.client_id, internals.error_reply(task.message, "no answer within the deadline"), None)
        for actor in busy:
            ray.kill(actor.handle)
            self.actors.remove(actor)
        self._start([self._spawn() for _ in busy])

    def _spawn(self) -> _Actor:
        remote = ray.remote(Worker).options(num_cpus=1, max_restarts=0, max_task_retries=0)
        return _Actor(remote.remote(self.num_clients, self.experiment))

    def _start(self, actors: list[_Actor]) -> None:
        refs = [actor.handle.ready.remote() for actor in actors]
        _, missing = ray.wait(refs, num_returns=len(refs), timeout=START_SECONDS)
        if missing:
            raise EngineError(f"{len(missing)} of {len(refs)} workers did not start within {START_SECONDS:g} s")
        here = ray.get_runtime_context().get_node_id()
        try:
            places = ray.get(refs)
        except RayError as error:
            raise EngineError(f"a worker could not start: {error}") from None
        for actor, (node, process) in zip(actors, places, strict=True):
            actor.process = process if node == here else 0
        self.actors.extend(actors)
