"""Runs clients in this process at once, and on Ray's workers from when these are ready, if that is worth it."""

from __future__ import annotations

import contextlib
import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fedssl.runtime import one_thread
from simulations.engine import internals
from simulations.engine.grid import Answer, ClientTask
from simulations.engine.inline import call
from simulations.engine.start import THREADS, RayStart

START_COST = 10.0
"""Seconds that a start of Ray usually takes; clients go on meanwhile, and the cores are shared."""
GAIN = 5.0
"""Seconds that workers must save beyond that."""
LONG_SECONDS = 3.0
"""A first client that takes longer counts before it has answered."""
LOOK_SECONDS = 0.25
END_SECONDS = 2.0
"""Seconds that an interrupted run waits for the client at work."""


@dataclass
class _Job:
    """Clients of one exchange: those not begun, and the answers of those that are done, with their seconds."""

    waiting: deque[ClientTask]
    answers: queue.SimpleQueue[tuple[ClientTask, Answer | BaseException, float]] = field(
        default_factory=queue.SimpleQueue
    )


class Here:
    """A thread that runs clients one after another, so that a deadline or Ctrl-C need not wait for them."""

    def __init__(self, num_clients: int, experiment: str) -> None:
        self.num_clients = num_clients
        self.experiment = experiment
        self.task: ClientTask | None = None
        """The client that runs now."""
        self.since = 0.0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"{THREADS}-clients", daemon=True)
        self._thread.start()

    def run(self, tasks: list[ClientTask]) -> _Job:
        """Begin an exchange."""
        job = _Job(deque(tasks))
        self._jobs.put(job)
        return job

    def end(self, seconds: float) -> None:
        """End the thread when its client is done, and wait for that so long."""
        self._jobs.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        from clients import app

        one_thread()
        clients = app.create_app()
        while (job := self._jobs.get()) is not None:
            # Built before the first client, whose seconds would count it; what fails here fails at the client too.
            with contextlib.suppress(Exception):
                app.load(self.experiment)
            with contextlib.suppress(IndexError):
                while True:
                    self._act(clients, job, job.waiting.popleft())
        app.load.cache_clear()

    def _act(self, clients: object, job: _Job, task: ClientTask) -> None:
        self.since, self.task = time.monotonic(), task
        found: Answer | BaseException
        try:
            found = Answer(task.client_id, *call(clients, task, self.num_clients))
        except BaseException as error:
            found = error
        self.task = None
        job.answers.put((task, found, time.monotonic() - self.since))


class HandoverExecutor:
    """Begins in this process; hands clients not yet begun to workers, between two clients, once there are any."""

    def __init__(self, num_clients: int, experiment: str, begin: Callable[[], RayStart], cores: int) -> None:
        self.num_clients = num_clients
        self.cores = cores
        self.here = Here(num_clients, experiment)
        self.begin = begin
        self.starting: RayStart | None = None
        self.workers: Any = None
        self.failed = False
        self.handover_round: int | None = None
        self.note: Callable[[str], None] = lambda _: None
        self.warn: Callable[[str], None] = lambda _: None
        self.seconds: dict[int, float] = {}
        self._round, self._visits, self._usual_visits, self._rounds_left, self._cohort = 0, 0, 0, 0, 1
        self._job = _Job(deque())
        self._stuck = False

    @property
    def num_workers(self) -> int:
        """Return the number of processes that run clients now."""
        return int(self.workers.num_workers) if self.workers is not None else 1

    def run(self, tasks: list[ClientTask], timeout: float) -> Iterator[Answer]:
        """Run the tasks; a client that is late is answered for by an error, and the rest goes to workers."""
        end = time.monotonic() + timeout
        in_round = self._count(tasks)
        if (self.workers or in_round or self._stuck) and (workers := self._hand_over(len(tasks))) is not None:
            yield from workers.run(tasks, max(0.0, end - time.monotonic()))
            return
        job = self._job = self.here.run(tasks)
        missing = {task.client_id: task for task in tasks}
        while missing:
            try:
                task, found, seconds = job.answers.get(timeout=min(LOOK_SECONDS, max(0.0, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end:
                    yield from self._late(job, missing)
                    return
            else:
                if isinstance(found, BaseException):
                    raise found
                self.seconds[task.client_id] = seconds
                del missing[task.client_id]
                yield found
            if in_round and job.waiting and (workers := self._hand_over(len(job.waiting))) is not None:
                for answer in workers.run(_taken(job), max(0.0, end - time.monotonic())):
                    del missing[answer.client_id]
                    yield answer

    def close(self) -> None:
        """End the workers and the thread; a start that still goes on ends by itself."""
        self._job.waiting.clear()
        if self.starting is not None:
            self.starting.close()
        self.here.end(0 if self._stuck else END_SECONDS)

    def _late(self, job: _Job, missing: dict[int, ClientTask]) -> Iterator[Answer]:
        """Answer for the clients that are not done; the thread stays with the one that runs."""
        job.waiting.clear()
        self._stuck = self.here.task is not None
        for client_id, task in missing.items():
            yield Answer(client_id, internals.error_reply(task.message, "no answer within the deadline"), None)

    def _count(self, tasks: list[ClientTask]) -> bool:
        """Note how many clients a round asks, and how many rounds follow; say whether the tasks are of a round."""
        step: Any = tasks[0].message.content.get("step") if tasks else None
        if step is None:
            return False
        number = int(step["round"])
        if number != self._round:
            self._round, self._visits, self._usual_visits = number, 0, self._visits
        self._visits += len(tasks)
        self._rounds_left = int(step["num_rounds"]) - number
        self._cohort = len(tasks)
        return True

    def _hand_over(self, waiting: int) -> Any:
        """Return the workers once they have taken over, else None; begin their start when it is worth it.

        Waits for them if this process is stuck with a client; raises then what their start failed by.
        """
        if self.workers is not None or (self.failed and not self._stuck):
            return self.workers
        if self.starting is None and (self._stuck or self._is_worth_it(waiting)):
            self.starting = self.begin()
        if self.starting is None:
            return None
        try:
            self.workers = self.starting.result() if self._stuck else self.starting.poll()
        except Exception as error:
            if self._stuck:
                raise
            self.failed = True
            self.warn(f"no workers, the run goes on in one process: {error}")
        if self.workers is not None:
            self.workers.seconds.update(self.seconds)
            self.here.end(0)
            self.handover_round = self._round
            self.note(f"round {self._round}: {self.num_workers} workers take over")
        return self.workers

    def _is_worth_it(self, waiting: int) -> bool:
        """Say whether workers would save more than their start costs, by the seconds that clients took so far."""
        parallel = min(self.cores, self._cohort)
        now = time.monotonic() - self.here.since if self.here.task is not None else 0.0
        if len(self.seconds) > 1:
            # Of two the shorter: the first client of a process also waits for imports.
            usual = statistics.median_low(self.seconds.values())
        elif now > LONG_SECONDS:
            usual = now
        else:
            return False
        left = waiting + self._rounds_left * max(self._visits, self._usual_visits)
        return (usual * left - START_COST) * (1 - 1 / parallel) > GAIN


def _taken(job: _Job) -> list[ClientTask]:
    """Take the clients that are not begun."""
    taken: list[ClientTask] = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(job.waiting.popleft())
    return taken
