"""One class a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fedssl.tasks.base import Ints, Kinds, Logits, Task, evaluating, register


def predict(model: torch.nn.Module, x_batches: Iterable[torch.Tensor]) -> Logits:
    """Give logits (n, classes), in eval mode and without gradients; (0, 0) without batches.

    Every module's mode is restored, and no buffer changes.
    """
    with evaluating(model), torch.no_grad():
        parts = [model(x).logits.float().cpu().numpy() for x in x_batches]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


@register("classification")
@dataclass
class Classification(Task):
    """Scores of the largest logit and of the probabilities behind it."""

    main_metric = "accuracy"
    headline: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "personal_accuracy": "personal"}

    def predict(self, model: torch.nn.Module, x_batches: Iterable[torch.Tensor]) -> Logits:
        """Give logits (n, classes)."""
        return predict(model, x_batches)

    def answers(self, logits: Logits, y: Ints, kinds: Kinds) -> dict[str, Sequence[Any]]:
        """Return logits and classes."""
        del kinds
        known = y >= 0
        return {"logits": (logits[known], y[known])}
