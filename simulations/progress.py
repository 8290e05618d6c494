"""What a person sees while a run goes on: a live bar on a terminal, one line a round elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedssl.assembly import task_name
from fedssl.config import Experiment
from fedssl.metrics.base import WARM_UP
from fedssl.tasks.base import TASKS


class Display:
    """A watcher that draws a run's progress on the console."""

    def __init__(self, console: Console, errors: Console | None = None) -> None:
        self.console = console
        self.errors = errors or Console(stderr=True, soft_wrap=True)
        self.bar: Progress | None = None
        self.rounds = 0
        self.began = 0.0
        self.first = 1
        self.cohort = 0
        self.answered = 0
        self.headline: Mapping[str, str] = {}

    def begin(self, experiment: Experiment, first_round: int) -> None:
        """Show what begins."""
        self.rounds, self.first, self.began = experiment.rounds, first_round, time.perf_counter()
        self.cohort = max(1, round(experiment.participation * experiment.clients))
        self.headline = TASKS.get(task_name(experiment)).headline
        if first_round > experiment.rounds:
            done = f"all {experiment.rounds} rounds are done; rounds=N goes on to the N-th"
            self.console.print(done, highlight=False)
            return
        names = [experiment.method["name"], experiment.data["name"], experiment.partition["name"]]
        self.console.print(
            f"{' · '.join(names)}: {experiment.clients} clients, rounds {first_round} to {experiment.rounds}, "
            f"engine {experiment.engine.name}",
            highlight=False,
        )
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("round"),
                MofNCompleteColumn(),
                BarColumn(20),
                TextColumn("{task.fields[clients]}"),
                TextColumn("{task.fields[scores]}", style="cyan"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            fields: dict[str, Any] = {"clients": self._clients(), "scores": "", "left": ""}
            self.task = self.bar.add_task("rounds", total=self.rounds, completed=first_round - 1, **fields)
            self.bar.start()

    def stage(self, name: str, done: int, total: int) -> None:
        """Show how far the server is before the rounds: on the bar, or in a line each tenth."""
        if total == 0:
            return
        if done == 0:
            self.began = time.perf_counter()
        left = f"{_left(self.began, done, total)} left" if done else ""
        quick = time.perf_counter() - self.began < _QUICK
        if done == total:
            self.began = time.perf_counter()
        if self.bar is not None:
            scores, left = (f"{name} {done}/{total}", left) if done < total else ("", "")
            self.bar.update(self.task, scores=scores, left=left)
        elif done == 0 or (done * _LINES // total > (done - 1) * _LINES // total and not quick):
            line = f"{name} {done}/{total}" + (f"  {left}" if left else "")
            self.console.print(line, highlight=False)

    def client(self, client_id: int) -> None:
        """Count a client's answer; scores of personalised models are answers too, so the count stops at all."""
        del client_id
        self.answered = min(self.answered + 1, self.cohort)
        if self.bar is not None:
            self.bar.update(self.task, clients=self._clients())

    def _clients(self) -> str:
        return f"clients {self.answered}/{self.cohort}"

    def round(self, record: dict[str, Any]) -> None:
        """Show a finished round."""
        number = record["round"]
        scores = describe(record, self.headline)
        for client, reason in record["failed"].items():
            self.warn(f"round {number}: client {client} left out: {reason.strip().splitlines()[-1]}")
        self.answered = 0
        done = number - self.first + 1
        left = f"{_left(self.began, done, done + self.rounds - number)} left"
        if number == self.first and (begun := _begun(record, self.headline)):
            self.console.print(begun, highlight=False)
        if self.bar is not None:
            self.bar.update(self.task, completed=number, scores=scores, left=left, clients=self._clients())
            return
        failed = {int(client) for client in record["failed"]} & set(record["cohort"])
        answers = f"clients {len(record['cohort']) - len(failed)}/{len(record['cohort'])}"
        line = f"round {number}/{self.rounds}  {answers}  {scores}  {record['seconds']:.1f} s, {left}"
        self.console.print(line, highlight=False)

    def note(self, line: str) -> None:
        """Show one line of what goes on."""
        self.console.print(line, markup=False, highlight=False)

    def warn(self, line: str) -> None:
        """Show one line that the user must see, on standard error: above the bar where both are the terminal."""
        console = self.console if self.bar is not None and self.errors.is_terminal else self.errors
        console.print(f"warning: {line}", style="yellow", markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


_LINES = 10
"""Lines that a stage prints where there is no bar."""
_QUICK = 1.0
"""Seconds within which a stage prints no more than its first line."""


def _left(began: float, done: int, total: int) -> str:
    """Give the time that the rest will take at the pace so far."""
    return span((time.perf_counter() - began) / done * (total - done))


def _begun(record: dict[str, Any], headline: Mapping[str, str]) -> str:
    """Say how well the model does that a method has trained before the rounds; nothing without one."""
    train = record.get("train") or {}
    found = [(label, train.get(f"{WARM_UP}{name}")) for name, label in headline.items()]
    return next((f"after the warm-up: {label} {value:.3f}" for label, value in found if value is not None), "")


def describe(record: dict[str, Any], headline: Mapping[str, str]) -> str:
    """Return the few numbers of a round that fit a line: the loss, and the test scores of `Task.headline`."""
    train, test = record.get("train") or {}, record.get("test") or {}
    shown = [("loss", train.get("loss")), *((label, test.get(name)) for name, label in headline.items())]
    return "  ".join(f"{label} {value:.3f}" for label, value in shown if value is not None)


def span(seconds: float) -> str:
    """Give a time in words: `12 s`, `3 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
