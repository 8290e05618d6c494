"""Balanced assignment of samples to clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_TOLERANCE = 0.01
_CHECK_EVERY = 10
_LEAST = 1e-100


def sinkhorn(scores: Float[Tensor, "n clusters"], sharpness: float, max_iter: int = 100) -> Float[Tensor, "n clusters"]:
    """Return assignments whose rows sum to 1 and columns to about n / clusters; no gradient.

    Computed in float64. Stops when the last checked change of the row factors (iterations 0, 10, 20, ...) is below
    0.01 in sum. `sharpness` multiplies the scores.
    Source: Sinkhorn-Knopp as in Orchestra (Lubana et al. 2022) and FedoSSL's code.
    """
    with torch.no_grad():
        if scores.numel() == 0:
            return scores.clone()
        n, num_clusters = scores.shape
        # The floor keeps a cluster that nobody is near from dividing by 0.
        p = torch.softmax(sharpness * scores.double(), dim=1).clamp_(min=_LEAST)
        p_t = p.T.contiguous()
        row = p.new_full((n,), 1 / n)
        column = p.new_ones(num_clusters)
        change = float("inf")
        for iteration in range(max_iter):
            column = (p_t @ row).mul_(num_clusters).reciprocal_()
            new = (p @ column).mul_(n).reciprocal_()
            if iteration % _CHECK_EVERY == 0:
                change = float((row / new - 1).abs().sum())
            row = new
            if change < _TOLERANCE:
                break
        return (n * p * row[:, None] * column).to(scores.dtype)
