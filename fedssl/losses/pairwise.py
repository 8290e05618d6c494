"""ORCA's pairwise term: two samples that belong together are predicted alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_LEAST = 1e-8


def choose_partners(
    features: Float[Tensor, "batch dim"], y: Int[Tensor, " labelled"], generator: torch.Generator
) -> Int[Tensor, " batch"]:
    """Give each row's partner in the batch, whose first rows are those with labels `y`.

    A labelled row: a random other one of its class, itself if it is alone. Another row: the most similar by cosine
    among all rows but itself. `generator` is on the CPU.
    Source: Cao et al. 2022 (ORCA), section 3.4; ties and lone rows as in its code.
    """
    with torch.no_grad():
        rest = len(y)
        unit = torch.nn.functional.normalize(features.float(), dim=1)
        cosine = unit[rest:] @ unit.T
        own = torch.arange(len(cosine), device=cosine.device)
        cosine[own, own + rest] = -torch.inf
        nearest = cosine.argmax(dim=1) if len(cosine) else own
        return torch.cat([_same_class(y, generator), nearest])


def pairwise_loss(
    probability: Float[Tensor, "batch classes"], partner: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Give the mean of -log(p . partner), the product at least 1e-8; 0 for an empty batch.

    Source: Zhang et al. 2023 (FedoSSL), eq. 3, whose sign is a misprint; Cao et al. 2022 (ORCA), eq. 6.
    """
    if len(probability) == 0:
        return probability.sum()
    return -(probability * partner).sum(dim=1).clamp(min=_LEAST).log().mean()


def _same_class(y: Int[Tensor, " labelled"], generator: torch.Generator) -> Int[Tensor, " labelled"]:
    order = y.argsort(stable=True)
    in_order: Any = y[order]
    _, group, sizes = in_order.unique_consecutive(return_inverse=True, return_counts=True)
    start, size = (sizes.cumsum(0) - sizes)[group], sizes[group]
    place = torch.arange(len(y), device=y.device) - start
    # A step of 1..size-1 around the class never comes back to the row itself.
    drawn = torch.rand(len(y), generator=generator).to(y.device)
    step = 1 + (drawn * (size - 1)).long()
    partner = torch.empty_like(order)
    partner[order] = order[start + (place + step) % size]
    return partner
