"""Residual network for small images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedssl.models.base import Outputs

COSINE_SCALE = 10.0
_NUM_GROUPS = 2
_AVX2_BLOCK, _AVX512_BLOCK = 8, 16
# Pixels of output that one thread takes in one piece on any processor: 32 KiB of cache hold 512 of 16 floats.
_WHOLE_IMAGE = 512


def _norm(channels: int, kind: str) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(math.gcd(_NUM_GROUPS, channels), channels)
    return nn.BatchNorm2d(channels)


def _conv3x3(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


class _NarrowConv(nn.Conv2d):
    """A strided 1x1 convolution of fewer than 16 channels that takes every second pixel first where oneDNN overruns.

    oneDNN's gradient of its weight takes `channels` floats a pixel as workspace and writes blocks of 8 (AVX2) or 16
    (AVX-512), from the second piece of an image on past its end: the process dies (its issue 6035, docs/running.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution's output."""
        if not self._overruns(x):
            return super().forward(x)
        rows, columns = self.stride
        return functional.conv2d(x[..., ::rows, ::columns], self.weight)

    def _overruns(self, x: Tensor) -> bool:
        """Tell whether an image may be cut into pieces; elsewhere the strided convolution's bits are kept."""
        if self.in_channels < _AVX2_BLOCK:
            return True
        rows, columns = self.stride
        pixels, rest = x.shape[-2] // rows * (x.shape[-1] // columns), x.shape[-2] % rows + x.shape[-1] % columns
        return x.device.type == "cpu" and not rest and (pixels > _WHOLE_IMAGE or torch.get_num_threads() > 1)


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
            kind = _NarrowConv if channels_in < _AVX512_BLOCK and stride > 1 else nn.Conv2d
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
