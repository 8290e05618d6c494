"""What a task is: how a model is asked and which metrics score its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.registry import Registry

if TYPE_CHECKING:
    import torch


class Task(ABC):
    """A task; `main_metric` (larger is better) chooses the best round."""

    name: ClassVar[str] = ""
    main_metric: ClassVar[str] = ""

    @abstractmethod
    def predict(self, model: torch.nn.Module, x_batches: Iterable[torch.Tensor]) -> NDArray[np.float32]:
        """Give the model's outputs for all batches, one row a sample; the model stays as it was."""

    @abstractmethod
    def score(self, logits: NDArray[np.float32], y: NDArray[np.int64]) -> dict[str, float]:
        """Give the metrics; rows with y = -1 (unknown) are left out, NaN where none is left."""


TASKS: Registry[Task] = Registry("task", "fedssl.tasks")
register = TASKS.register
