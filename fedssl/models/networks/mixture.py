"""One classifier made of several heads on one encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedssl.models.base import Outputs


def log_mixture(log_probabilities: Tensor, log_weights: Tensor) -> Tensor:
    """Give log sum_m w_m p_m (batch, classes) of log p (models, batch, classes) and log w (models,)."""
    return (log_probabilities + log_weights[:, None, None]).logsumexp(dim=0)


def log_probabilities(heads: Sequence[nn.Module], features: Tensor) -> Tensor:
    """Give log p (models, batch, classes) of the heads on features (batch, dim), float32."""
    return torch.stack([head(features).float().log_softmax(dim=1) for head in heads])


class Mixture(nn.Module):
    """P(y | x) = sum_m w_m p_m(y | encoder(x)), w = softmax(v); its logits are log P.

    `encoder` is a whole network whose own head is not asked; it is frozen, and shared with whoever made this.
    """

    def __init__(self, encoder: nn.Module, heads: Sequence[nn.Module], v: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads)
        self.v = nn.Parameter(v.clone())

    @property
    def weights(self) -> Tensor:
        """Give w (models,), on the simplex."""
        return self.v.detach().softmax(dim=0)

    def mix(self, features: Tensor) -> Tensor:
        """Give log P (batch, classes) of features (batch, dim)."""
        return log_mixture(log_probabilities(list(self.heads), features), self.v.log_softmax(dim=0))

    def forward(self, x: Tensor) -> Outputs:
        """Give the encoder's features and log P."""
        with torch.no_grad():
            features = self.encoder(x).features
        return Outputs(features, self.mix(features))
