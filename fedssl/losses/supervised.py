"""The supervised term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def cross_entropy(logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Give the mean cross-entropy over the batch; 0, still with a graph, for an empty one."""
    if len(y) == 0:
        return logits.float().sum()
    return torch.nn.functional.cross_entropy(logits.float(), y)
