"""Contrastive losses on two views of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def nt_xent(z1: Float[Tensor, "n dim"], z2: Float[Tensor, "n dim"], temperature: float) -> Float[Tensor, ""]:
    """Give the mean over all 2n rows of -log softmax(cosine / temperature) at the other view of the same sample.

    Source: Chen et al. 2020 (SimCLR), eq. 1.
    """
    similarity = _similarity(z1, z2, temperature)
    return functional.cross_entropy(similarity, _partners(len(z1), similarity.device))


def decoupled(z1: Float[Tensor, "n dim"], z2: Float[Tensor, "n dim"], temperature: float) -> Float[Tensor, ""]:
    """Give `nt_xent` with the positive pair left out of the denominator; needs n >= 2.

    Source: Yeh et al. 2022 (Decoupled Contrastive Learning), eq. 6.
    """
    similarity = _similarity(z1, z2, temperature)
    partner = _partners(len(z1), similarity.device)[:, None]
    positive = similarity.gather(1, partner)[:, 0]
    negatives = similarity.scatter(1, partner, float("-inf"))
    return (torch.logsumexp(negatives, dim=1) - positive).mean()


def _similarity(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Give scaled cosines (2n, 2n), float32, with -inf on the diagonal."""
    z = functional.normalize(torch.cat([z1, z2]).float(), dim=1)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return (z @ z.T / temperature).masked_fill(own, float("-inf"))


def _partners(count: int, device: torch.device) -> Tensor:
    return torch.arange(2 * count, device=device).roll(count)
