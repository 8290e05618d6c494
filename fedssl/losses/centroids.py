"""FedoSSL's losses against global centroids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fedssl.losses.supervised import cross_entropy

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_LEAST = 1e-30


def soft_assignment(
    features: Float[Tensor, "batch dim"], centroids: Float[Tensor, "clusters dim"], temperature: float
) -> Float[Tensor, "batch clusters"]:
    """Give q, the softmax of the cosine to each centroid over `temperature`; centroids are unit rows.

    Source: Zhang et al. 2023 (FedoSSL), eq. 7.
    """
    cosine = torch.nn.functional.normalize(features.float(), dim=1) @ centroids.float().T
    return torch.softmax(cosine / temperature, dim=1)


def cluster_loss(q: Float[Tensor, "batch clusters"], partner: Float[Tensor, "batch clusters"]) -> Float[Tensor, ""]:
    """Give the mean cross-entropy of the partner's assignment under a row's own; 0 for an empty batch.

    Source: Zhang et al. 2023 (FedoSSL), eq. 9; the gradient reaches both, as in the authors' code.
    """
    if len(q) == 0:
        return q.sum()
    return -(q * partner.clamp(min=_LEAST).log()).sum(dim=1).mean()


def hard_centroid_loss(
    q: Float[Tensor, "batch clusters"], logits: Float[Tensor, "batch classes"], threshold: float
) -> Float[Tensor, ""]:
    """Give the mean cross-entropy with argmax q over the rows whose largest q is above `threshold`; 0 if none is.

    No gradient reaches q. Source: the authors' code, for eq. 8.
    """
    nearness, cluster = q.detach().max(dim=1)
    mask = nearness > threshold
    return cross_entropy(logits[mask], cluster[mask])


def soft_centroid_loss(q: Float[Tensor, "batch clusters"], logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """Give the mean cross-entropy with q as the target; 0 for an empty batch. No gradient reaches q.

    Source: Zhang et al. 2023 (FedoSSL), eq. 8.
    """
    if len(q) == 0:
        return logits.float().sum()
    return -(q.detach() * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
