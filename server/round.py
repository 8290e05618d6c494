"""What happened in one round, as the journal tells it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from fedssl.federation import Payload, Update
from server.evaluation import RoundScores


@dataclass
class Traffic:
    """Bytes of tensors on the wire, as the method sends them."""

    up: int = 0
    down: int = 0


@dataclass
class Round:
    """What happened in one round."""

    number: int
    cohort: list[int]
    failed: dict[int, str] = field(default_factory=dict)
    train: dict[str, float] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    seconds: float = 0.0
    server_seconds: float = 0.0
    evaluation: RoundScores = field(default_factory=RoundScores)

    @contextlib.contextmanager
    def server_at_work(self) -> Iterator[None]:
        """Count the time inside as the server's own."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.server_seconds += time.perf_counter() - began

    def record(self, elapsed: float) -> dict[str, Any]:
        """Give the round's object in `metrics.jsonl`, `elapsed` seconds after the run began."""
        return {
            "round": self.number,
            "seconds": self.seconds,
            "server_seconds": self.server_seconds,
            "elapsed": elapsed,
            "cohort": self.cohort,
            "failed": self.failed,
            "bytes_up": self.traffic.up,
            "bytes_down": self.traffic.down,
            "train": self.train,
            "test": self.evaluation.test,
            "validation": self.evaluation.validation,
            "clients": self.evaluation.clients,
        }


def num_bytes(payload: Payload) -> int:
    """Give the bytes of a payload's tensors."""
    return sum(
        tensor.nbytes
        for value in vars(payload).values()
        if isinstance(value, dict)
        for tensor in value.values()
        if isinstance(tensor, torch.Tensor)
    )


def means(updates: Iterable[Update]) -> dict[str, float]:
    """Give the mean of each metric over all that the clients counted."""
    sums: dict[str, tuple[float, float]] = {}
    for update in updates:
        for name, (value, count) in update.metrics.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + value, before[1] + count)
    return {name: value / count for name, (value, count) in sums.items() if count}
