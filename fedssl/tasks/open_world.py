"""One class a sample, some of which nobody has labels of: seen classes are named, the others found as clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import GLOBALLY_UNSEEN, LOCALLY_UNSEEN, SEEN
from fedssl.metrics import classification as metrics
from fedssl.metrics import open_world
from fedssl.metrics.by_client import by_client
from fedssl.tasks.base import Ints, Kinds, Logits, register
from fedssl.tasks.classification import Classification


@register("open_world")
@dataclass
class OpenWorld(Classification):
    """Scores on seen and unseen classes; clusters are matched to classes with the true classes of those scored."""

    main_metric = "accuracy_all"

    def score(self, logits: Logits, y: Ints, kinds: Kinds) -> dict[str, float]:
        """Give the open-world scores, and loss, ece and brier of the logits after the joint matching."""
        known = y >= 0
        logits, y = logits[known], y[known]
        if len(y) == 0:
            logits = np.zeros((0, len(kinds)), np.float32)
        found = open_world.scores(logits.argmax(axis=1), y, kinds)
        matched = self.by_class(logits, y)
        return {**found, **{each.__name__: each(matched, y) for each in (metrics.loss, metrics.ece, metrics.brier)}}

    def by_client(
        self, logits: Logits, y: Ints, index: Ints, offsets: Ints, kinds: Kinds
    ) -> dict[str, NDArray[np.float64]]:
        """Give each client's metrics; clusters are matched once, with all rows, and not anew for every client.

        `accuracy_unseen` uses the matching on all unseen rows, the rest the one on all rows.
        """
        kind = np.where(y >= 0, kinds[y], np.int8(-1))
        seen = np.where(kind == SEEN, y, -1)
        unseen = np.where((kind == LOCALLY_UNSEEN) | (kind == GLOBALLY_UNSEEN), y, -1)
        found = by_client(self.by_class(logits, y), y, index, offsets)
        found["accuracy_all"] = found.pop("accuracy")
        found["accuracy_seen"] = by_client(logits, seen, index, offsets)["accuracy"]
        found["accuracy_unseen"] = by_client(self.by_class(logits, unseen), unseen, index, offsets)["accuracy"]
        return found

    def by_class(self, logits: Logits, y: Ints) -> Logits:
        """Give the logits with each column at the class that the joint matching gives it."""
        return open_world.aligned(logits, y)
