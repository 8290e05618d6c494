"""One class a sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from fedssl.metrics import classification as metrics
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

    def predict(self, model: torch.nn.Module, x_batches: Iterable[torch.Tensor]) -> Logits:
        """Give logits (n, classes)."""
        return predict(model, x_batches)

    def score(self, logits: Logits, y: Ints, kinds: Kinds) -> dict[str, float]:
        """Give accuracy, macro_f1, loss, ece and brier."""
        del kinds
        known = y >= 0
        logits, y = logits[known], y[known]
        scores = (metrics.accuracy, metrics.macro_f1, metrics.loss, metrics.ece, metrics.brier)
        return {score.__name__: score(logits, y) for score in scores}
