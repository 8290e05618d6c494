"""What a person sees while a run goes on: a live bar on a terminal, one line a round elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedssl.config import Experiment
from fedssl.data.base import SOURCES


class Display:
    """A watcher that draws a run's progress on the console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.rounds = 0
        self.began = 0.0
        self.first = 1
        self.cohort = 0
        self.answered = 0
        self.task_name = "classification"

    def begin(self, experiment: Experiment, first_round: int) -> None:
        """Show what begins."""
        self.rounds, self.first, self.began = experiment.rounds, first_round, time.perf_counter()
        self.cohort = max(1, round(experiment.participation * experiment.clients))
        self.task_name = SOURCES.get(experiment.data["name"]).task
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
        scores = describe(record, self.task_name)
        for client, reason in record["failed"].items():
            self.warn(f"round {number}: client {client} left out: {reason.strip().splitlines()[-1]}")
        self.answered = 0
        done = number - self.first + 1
        left = f"{_left(self.began, done, done + self.rounds - number)} left"
        if number == self.first and (begun := _begun(record)):
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
        """Show one line that the user must see."""
        self.console.print(f"warning: {line}", style="yellow", markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


_SHOWN = (
    ("train", "loss", "loss"),
    ("test", "accuracy", "accuracy"),
    ("test", "accuracy_all", "all"),
    ("test", "accuracy_seen", "seen"),
    ("test", "accuracy_unseen", "unseen"),
    ("test", "personal_accuracy", "personal"),
    ("test", "personal_accuracy_all", "personal all"),
)
"""Split, metric and label of what a line has room for, where it is there."""
_SENSING = (
    ("train", "loss", "loss"),
    ("test", "accuracy", "accuracy"),
    ("test", "macro_f1", "macro F1"),
    ("test", "personal_accuracy", "personal"),
    ("test", "personal_macro_f1", "personal macro F1"),
)


_DETECTION = (
    ("train", "loss", "loss"),
    ("test", "map50_total", "mAP50"),
    ("test", "map50", "mAP50 of all"),
    ("test", "personal_map50", "personal mAP50"),
)
_LINES = 10
"""Lines that a stage prints where there is no bar."""
_QUICK = 1.0
"""Seconds within which a stage prints no more than its first line."""


def _left(began: float, done: int, total: int) -> str:
    """Give the time that the rest will take at the pace so far."""
    return span((time.perf_counter() - began) / done * (total - done))


def _begun(record: dict[str, Any]) -> str:
    """Say how well the model does that a detector's rounds begin with; nothing for other methods."""
    train = record.get("train") or {}
    found = [train.get(f"warm_up_{name}") for name in ("map50_total", "map50")]
    return next((f"after the warm-up: mAP50 {value:.3f}" for value in found if value is not None), "")


def describe(record: dict[str, Any], task: str = "classification") -> str:
    """Give the few numbers of a round that fit a line."""
    parts = []
    for split, name, label in {"sensing": _SENSING, "detection": _DETECTION}.get(task, _SHOWN):
        value = (record.get(split) or {}).get(name)
        if value is not None:
            parts.append(f"{label} {value:.3f}")
    return "  ".join(parts)


def span(seconds: float) -> str:
    """Give a time in words: `12 s`, `3 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
