"""One class a sample, some of which nobody has labels of: seen classes are named, the others found as clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import GLOBALLY_UNSEEN, LOCALLY_UNSEEN, SEEN
from fedssl.metrics import open_world
from fedssl.metrics.base import score_clients
from fedssl.metrics.by_client import ClientRows
from fedssl.metrics.classification import accuracy_by_client, macro_f1_by_client
from fedssl.tasks.base import Ints, Kinds, Logits, register
from fedssl.tasks.classification import Classification


@register("open_world")
@dataclass
class OpenWorld(Classification):
    """Scores on seen and unseen classes; clusters are matched to classes with the true classes of those scored."""

    main_metric = "accuracy_all"
    finds_classes: ClassVar[bool] = True
    headline: ClassVar[Mapping[str, str]] = {
        "accuracy_all": "all",
        "accuracy_seen": "seen",
        "accuracy_unseen": "unseen",
        "personal_accuracy_all": "personal all",
    }

    def answers(self, logits: Logits, y: Ints, kinds: Kinds) -> dict[str, Sequence[Any]]:
        """Return predicted clusters, and logits after the joint matching."""
        known = y >= 0
        logits, y = logits[known], y[known]
        if len(y) == 0:
            logits = np.zeros((0, len(kinds)), np.float32)
        return {"clusters": (logits.argmax(axis=1), y, kinds), "logits": (self.by_class(logits, y), y)}

    def by_client(
        self, logits: Logits, y: Ints, index: Ints, offsets: Ints, kinds: Kinds
    ) -> dict[str, NDArray[np.float64]]:
        """Return each client's metrics; clusters are matched once, with all rows, and not anew for every client.

        `accuracy_unseen` uses the matching on all unseen rows, the rest the one on all rows.
        """
        kind = np.where(y >= 0, kinds[y], np.int8(-1))
        seen = np.where(kind == SEEN, y, -1)
        unseen = np.where((kind == LOCALLY_UNSEEN) | (kind == GLOBALLY_UNSEEN), y, -1)
        matched = ClientRows(self.by_class(logits, y), y, index, offsets)
        matched_unseen = ClientRows(self.by_class(logits, unseen), unseen, index, offsets)
        return {
            **score_clients(self.name, {"logits": (matched,)}),
            "macro_f1": macro_f1_by_client(matched),
            "accuracy_all": accuracy_by_client(matched),
            "accuracy_seen": accuracy_by_client(ClientRows(logits, seen, index, offsets)),
            "accuracy_unseen": accuracy_by_client(matched_unseen),
        }

    def by_class(self, logits: Logits, y: Ints) -> Logits:
        """Give the logits with each column at the class that the joint matching gives it."""
        return open_world.aligned(logits, y)
