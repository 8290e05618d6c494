"""Residual network for small images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedssl.models.base import Outputs

COSINE_SCALE = 10.0
_NUM_GROUPS = 2
_NARROW = 8


def _norm(channels: int, kind: str) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(math.gcd(_NUM_GROUPS, channels), channels)
    return nn.BatchNorm2d(channels)


def _conv3x3(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


class _ThinnedConv(nn.Conv2d):
    """A strided 1x1 convolution of fewer than 8 channels, as one without a stride of every second pixel: the same bits.

    On processors with AVX2 alone oneDNN writes past its memory in the strided one's gradient (its issue 6035).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Give the convolution's output."""
        rows, columns = self.stride
        return functional.conv2d(x[..., ::rows, ::columns], self.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, figure 2, shortcut option B)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels_in, channels_out, stride)
        self.norm1 = _norm(channels_out, norm)
        self.conv2 = _conv3x3(channels_out, channels_out, 1)
        self.norm2 = _norm(channels_out, norm)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            kind = _ThinnedConv if channels_in < _NARROW and stride > 1 else nn.Conv2d
            conv = kind(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, _norm(channels_out, norm))

    def forward(self, x: Tensor) -> Tensor:
        """Give the block's output."""
        hidden = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class CosineHead(nn.Linear):
    """Logits 10 cos(feature, row of the weight), without bias (Chen et al. 2019, section 3.2; scale of ORCA's code)."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(features, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits (batch, classes) in -10..10."""
        return COSINE_SCALE * functional.linear(
            functional.normalize(x, dim=1), functional.normalize(self.weight, dim=1)
        )


class ResNet(nn.Module):
    """3x3 stem without pooling, stages of w, 2w, 4w, 8w channels, global mean, linear or cosine head.

    `trunk_layers` counts the modules of the backbone before its last stage.
    """

    def __init__(self, channels: int, num_classes: int, width: int, blocks: int, norm: str, head: str) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv3x3(channels, width, 1), _norm(width, norm), nn.ReLU()]
        channels_in = width
        for stage in range(4):
            self.trunk_layers = len(layers)
            channels_out = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels_in, channels_out, stride, norm))
                channels_in = channels_out
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = CosineHead(channels_in, num_classes) if head == "cosine" else nn.Linear(channels_in, num_classes)

    def forward(self, x: Tensor) -> Outputs:
        """Give features (batch, 8 * width) and logits."""
        features = self.backbone(x)
        return Outputs(features, self.head(features))
