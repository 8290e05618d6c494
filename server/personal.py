"""Scores of the clients' own models, collected from their replies."""

from __future__ import annotations

import math
from typing import Any

from flwr.app import Message, MetricRecord

from fedssl.metrics.base import PERSONAL
from server.evaluation import RoundScores, Scores


class PersonalScores:
    """The `personal_` scores of one round, by split and client id."""

    def __init__(self) -> None:
        self.splits: dict[str, dict[int, Scores]] = {"test": {}, "validation": {}}

    def collect(self, client_id: int, reply: Message) -> None:
        """Note a reply's scores; NaN is no score, and a client may give none."""
        for split, scores in self.splits.items():
            values: Any = reply.content.get(split)
            if not isinstance(values, MetricRecord):
                continue
            numbers = {k: float(v) for k, v in values.items() if isinstance(v, (int, float))}
            named = {f"{PERSONAL}{k}": v for k, v in numbers.items() if math.isfinite(v)}
            named.pop(f"{PERSONAL}num_examples", None)
            if named:
                scores[client_id] = named

    def add_to(self, found: RoundScores) -> None:
        """Add plain means over the clients that have a score, and each client's own test scores."""
        for split, target in (("test", found.test), ("validation", found.validation)):
            scores = self.splits[split]
            for name in sorted({name for values in scores.values() for name in values}):
                known = [scores[client_id][name] for client_id in sorted(scores) if name in scores[client_id]]
                target[name] = sum(known) / len(known)
        for client_id, values in self.splits["test"].items():
            found.clients.setdefault(client_id, {}).update(values)
