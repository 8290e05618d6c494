"""Convolutional network for sensor windows."""

from __future__ import annotations

import math

from torch import Tensor, nn

from fedssl.models.base import Outputs

_KERNELS = (7, 5, 3)
_NUM_GROUPS = 2


class CNN1d(nn.Module):
    """Convolution, norm and ReLU three times, then the mean over time (Wang et al. 2017, section II.B).

    Paper: kernels 8, 5, 3 of width 128; the first is 7 here, so that padding is even on both sides.
    """

    def __init__(self, channels: int, num_classes: int, width: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels_in = channels
        for kernel, channels_out in zip(_KERNELS, (width, 2 * width, width), strict=True):
            layers.append(nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False))
            groups = math.gcd(_NUM_GROUPS, channels_out)
            layers.append(nn.GroupNorm(groups, channels_out) if norm == "group" else nn.BatchNorm1d(channels_out))
            layers.append(nn.ReLU())
            channels_in = channels_out
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = nn.Linear(width, num_classes)
        self.trunk_layers = 0

    def forward(self, x: Tensor) -> Outputs:
        """Give features (batch, width) and logits from (batch, channels, steps)."""
        features = self.backbone(x)
        return Outputs(features, self.head(features))
