"""One-stage object detector: backbone, neck that joins three scales, head of one convolution a scale.

The layout is that of YOLOv5 v6 (CSPDarknet, PAN, anchors); batch norm keeps torch's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedssl.models.detection.anchors import PER_LEVEL, STRIDES, coco_anchors, decode_boxes

_BOX = 4
_OBJECTS = 8
_REFERENCE = 640


class Decoded(NamedTuple):
    """All of a detector's outputs: boxes xyxy in pixels (b, n, 4), objectness (b, n), class_probability (b, n, nc)."""

    boxes: Tensor
    objectness: Tensor
    class_probability: Tensor


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, SiLU."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Give the unit's output."""
        return functional.silu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """1x1 and 3x3 unit, with a shortcut or without."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.unit1 = ConvUnit(channels, channels)
        self.unit2 = ConvUnit(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Give the block's output."""
        hidden: Tensor = self.unit2(self.unit1(x))
        return x + hidden if self.shortcut else hidden


class CrossStage(nn.Module):
    """Two branches of half the channels, one of them with bottlenecks, joined by a 1x1 unit (Wang et al. 2020, CSP)."""

    def __init__(self, channels_in: int, channels_out: int, depth: int, *, shortcut: bool) -> None:
        super().__init__()
        half = channels_out // 2
        self.enter = ConvUnit(channels_in, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut=shortcut) for _ in range(depth)))
        self.bypass = ConvUnit(channels_in, half)
        self.join = ConvUnit(2 * half, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Give the block's output."""
        joined: Tensor = self.join(torch.cat([self.blocks(self.enter(x)), self.bypass(x)], dim=1))
        return joined


class PyramidPooling(nn.Module):
    """Max-pools of 5, 9 and 13 cells beside the input, as three pools of 5 in series, between 1x1 units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvUnit(channels, channels // 2)
        self.join = ConvUnit(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Give the block's output."""
        pooled = [self.enter(x)]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, stride=1, padding=2))
        joined: Tensor = self.join(torch.cat(pooled, dim=1))
        return joined


class Backbone(nn.Module):
    """Stem and four stages of 2w, 4w, 8w, 16w channels; the last three give maps at strides 8, 16, 32."""

    def __init__(self, width: int, depths: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvUnit(3, width, 6, stride=2, padding=2)
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            channels = width * 2 ** (stage + 1)
            down = ConvUnit(channels // 2, channels, 3, stride=2)
            self.stages.append(nn.Sequential(down, CrossStage(channels, channels, depth, shortcut=True)))
        self.pool = PyramidPooling(16 * width)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the three maps, finest first."""
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[1], maps[2], self.pool(maps[3])]


class Neck(nn.Module):
    """Path down from the coarsest map and up again (Liu et al. 2018, PANet); maps keep 4w, 8w, 16w channels."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.lateral5 = ConvUnit(16 * width, 8 * width)
        self.down4 = CrossStage(16 * width, 8 * width, depth, shortcut=False)
        self.lateral4 = ConvUnit(8 * width, 4 * width)
        self.down3 = CrossStage(8 * width, 4 * width, depth, shortcut=False)
        self.stride3 = ConvUnit(4 * width, 4 * width, 3, stride=2)
        self.up4 = CrossStage(8 * width, 8 * width, depth, shortcut=False)
        self.stride4 = ConvUnit(8 * width, 8 * width, 3, stride=2)
        self.up5 = CrossStage(16 * width, 16 * width, depth, shortcut=False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Give the three maps, finest first."""
        fine, middle, coarse = maps
        lateral5 = self.lateral5(coarse)
        lateral4 = self.lateral4(self.down4(torch.cat([_double(lateral5), middle], dim=1)))
        level3 = self.down3(torch.cat([_double(lateral4), fine], dim=1))
        level4 = self.up4(torch.cat([self.stride3(level3), lateral4], dim=1))
        level5 = self.up5(torch.cat([self.stride4(level4), lateral5], dim=1))
        return [level3, level4, level5]


class Head(nn.Module):
    """One 1x1 convolution a level; the buffer `anchors` (3, 3, 2) in pixels goes with the model."""

    def __init__(self, size: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.size, self.num_classes = size, num_classes
        self.outputs = _BOX + 1 + num_classes
        self.convs = nn.ModuleList(nn.Conv2d(k * width, PER_LEVEL * self.outputs, 1) for k in (4, 8, 16))
        self.anchors: Tensor
        self.register_buffer("anchors", torch.empty(len(STRIDES), PER_LEVEL, 2))
        self.after_initialise()

    @torch.no_grad()
    def after_initialise(self) -> None:
        """Set COCO's anchors and the biases that expect few objects: 8 a picture of 640 pixels (YOLOv5)."""
        self.anchors.copy_(coco_anchors(self.size))
        for conv, stride in zip(self.convs, STRIDES, strict=True):
            assert isinstance(conv.bias, Tensor)
            bias = conv.bias.view(PER_LEVEL, self.outputs)
            bias[:, _BOX] = math.log(_OBJECTS / (_REFERENCE / stride) ** 2)
            bias[:, _BOX + 1 :] = math.log(0.6 / (self.num_classes - 0.99))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Give (batch, 3, height, width, 5 + classes) a level: tx, ty, tw, th, objectness and class logits."""
        made = []
        for conv, level in zip(self.convs, maps, strict=True):
            x = conv(level)
            x = x.view(len(x), PER_LEVEL, self.outputs, *x.shape[2:])
            made.append(x.permute(0, 1, 3, 4, 2))
        return made


class Detector(nn.Module):
    """Detector of square pictures of side `size`; every tensor is named `backbone.*`, `neck.*` or `head.*`."""

    def __init__(self, size: int, num_classes: int, width: int, depths: Sequence[int], neck_depth: int) -> None:
        super().__init__()
        self.backbone = Backbone(width, depths)
        self.neck = Neck(width, neck_depth)
        self.head = Head(size, num_classes, width)
        self.trunk_layers = 0

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the head's three maps for pictures (batch, 3, side, side) in 0..1."""
        maps: list[Tensor] = self.head(self.neck(self.backbone(x)))
        return maps

    def decode(self, maps: list[Tensor]) -> Decoded:
        """Give all boxes with their probabilities in float32, n ordered by level, anchor, row, column."""
        parts = []
        for raw, anchors, stride in zip(maps, self.head.anchors, STRIDES, strict=True):
            raw = raw.float()
            rows, columns = (torch.arange(side, dtype=raw.dtype, device=raw.device) for side in raw.shape[2:4])
            cell = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
            boxes = decode_boxes(raw[..., :_BOX], cell, anchors[:, None, None], stride)
            parts.append(torch.cat([boxes, raw[..., _BOX:].sigmoid()], dim=-1).flatten(1, 3))
        made = torch.cat(parts, dim=1)
        return Decoded(made[..., :_BOX], made[..., _BOX], made[..., _BOX + 1 :])


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
