"""The loss of a mixture of classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

LEAST_PROBABILITY = 1e-8


def mixture_loss(log_probability: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Give the mean of -log max(P(y), 1e-8) over the batch; 0, still with a graph, for an empty one."""
    if len(y) == 0:
        return log_probability[:0].sum()
    of_truth = log_probability.gather(1, y[:, None])[:, 0]
    return -of_truth.clamp(min=torch.tensor(LEAST_PROBABILITY).log().item()).mean()
