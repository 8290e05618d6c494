"""Fully connected network."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from fedssl.models.base import Outputs


class MLP(nn.Module):
    """`layers` hidden layers of `hidden` units with ReLU, on the flattened sample."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, hidden: int, layers: int) -> None:
        super().__init__()
        sizes = [math.prod(shape), *[hidden] * layers]
        parts: list[nn.Module] = [nn.Flatten()]
        for size_in, size_out in pairwise(sizes):
            parts += [nn.Linear(size_in, size_out), nn.ReLU()]
        self.backbone = nn.Sequential(*parts)
        self.head = nn.Linear(hidden, num_classes)
        self.trunk_layers = 0

    def forward(self, x: Tensor) -> Outputs:
        """Give features (batch, hidden) and logits."""
        features = self.backbone(x)
        return Outputs(features, self.head(features))
