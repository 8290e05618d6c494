"""What a task is: how a model is asked and which metrics score its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.metrics.by_client import by_client
from fedssl.registry import Registry

if TYPE_CHECKING:
    import torch

Logits = NDArray[np.float32]
Ints = NDArray[np.int64]
Kinds = NDArray[np.int8]


class Task(ABC):
    """A task; `main_metric` (larger is better) chooses the best round.

    `kinds` (classes,) says of each class whether it is seen, locally or globally unseen, or absent; see `Split.kinds`.
    """

    name: ClassVar[str] = ""
    main_metric: ClassVar[str] = ""

    @abstractmethod
    def predict(self, model: torch.nn.Module, x_batches: Iterable[torch.Tensor]) -> Logits:
        """Give the model's outputs for all batches, one row a sample; the model stays as it was."""

    @abstractmethod
    def score(self, logits: Logits, y: Ints, kinds: Kinds) -> dict[str, float]:
        """Give the metrics; rows with y = -1 (unknown) are left out, NaN where none is left."""

    def by_client(
        self, logits: Logits, y: Ints, index: Ints, offsets: Ints, kinds: Kinds
    ) -> dict[str, NDArray[np.float64]]:
        """Give each client's metrics (clients,), `main_metric` among them; NaN for one without samples.

        Client c holds the rows `index[offsets[c]:offsets[c + 1]]`.
        """
        del kinds
        return by_client(logits, y, index, offsets)

    def by_class(self, logits: Logits, y: Ints) -> Logits:
        """Give the logits with column c for class c, which they have unless a task finds classes itself."""
        del y
        return logits


TASKS: Registry[Task] = Registry("task", "fedssl.tasks")
register = TASKS.register
