"""The random views of SimCLR, for a whole batch in a few tensor operations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10
_HUE_SHARE = 0.25
_JITTERED, _GREY = 0.8, 0.2
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def random_views(x: Tensor, generator: torch.Generator, *, flip: bool, least_area: float, jitter: float) -> Tensor:
    """Give a random view of each image, float32 (batch, channels, height, width) in 0..1.

    `x` is uint8 (batch, height, width, channels), on the CPU as the generator is. Crop of `least_area` to 1 of the
    area, mirrored half the time if `flip`; with p 0.8 brightness, contrast and saturation jitter by `jitter` and the
    hue by a quarter of it, grey with p 0.2. One channel has brightness and contrast alone: without their jitter the
    shades of two crops would tell that they are of one image.
    Source: Chen et al. 2020, appendix A; 0.4 is half strength, without blur, as for small images (appendix B.9).
    """
    batch, height, width, channels = x.shape
    boxes = draw_boxes(batch, height, width, generator, least_area)
    mirrored = _chance(batch, 0.5 if flip else 0.0, generator)
    out = crop(x.permute(0, 3, 1, 2).to(torch.float32).div_(255), boxes, mirrored)
    brightness, contrast, saturation, hue = draw_colours(batch, generator, jitter)
    if channels == 3:
        return change_colours(out, brightness, contrast, saturation, hue)
    return change_light(out, brightness, contrast)


def normalise(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Give (x - mean) / std by channel, in channels_last layout."""
    shape = (1, len(mean), 1, 1)
    centred = x - torch.tensor(mean, device=x.device).view(shape)
    return centred.div_(torch.tensor(std, device=x.device).view(shape)).contiguous(memory_format=torch.channels_last)


def draw_boxes(batch: int, height: int, width: int, generator: torch.Generator, least_area: float) -> Tensor:
    """Give random crops as (batch, 4): top, left, height, width, in pixels.

    The first of 10 tries that fits the image counts, as in torchvision; if none does, the last one is cut to fit.
    """
    area = _uniform((_TRIES, batch), least_area, 1.0, generator) * height * width
    aspect = _uniform((_TRIES, batch), math.log(_ASPECT[0]), math.log(_ASPECT[1]), generator).exp()
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()])
    limits = torch.tensor([height, width], dtype=torch.float32)
    fits = (sides <= limits[:, None, None]).all(dim=0)
    fits[-1] = True
    first = fits.to(torch.int8).argmax(dim=0)
    chosen = sides[:, first, torch.arange(batch)].T.minimum(limits)
    corner = (limits - chosen) * torch.rand(batch, 2, generator=generator)
    return torch.cat([corner, chosen], dim=1)


def crop(x: Tensor, boxes: Tensor, mirrored: Tensor) -> Tensor:
    """Enlarge each image's box to the image's size, bilinearly, and mirror those of `mirrored` (batch,), bool.

    A box is never larger than the image, so no smoothing is needed. Without change, the image comes back.
    """
    height, width = x.shape[2:]
    top, left, tall, wide = boxes.unbind(dim=1)
    rows = _positions(top, tall, height)
    columns = _positions(left, wide, width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    shape = (len(x), height, width)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=3)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def draw_colours(batch: int, generator: torch.Generator, jitter: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give factors of brightness, contrast, saturation, and turns of the hue; each (batch,)."""
    brightness, contrast, saturation = _uniform((3, batch), 1 - jitter, 1 + jitter, generator)
    hue = _uniform((batch,), -_HUE_SHARE * jitter, _HUE_SHARE * jitter, generator)
    still = ~_chance(batch, _JITTERED, generator)
    one = torch.ones(batch)
    brightness, contrast, saturation = (torch.where(still, one, f) for f in (brightness, contrast, saturation))
    saturation = saturation.masked_fill(_chance(batch, _GREY, generator), 0)
    return brightness, contrast, saturation, hue.masked_fill(still, 0)


def change_light(x: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Change brightness and contrast, factors (batch,), of images (batch, channels, height, width) in 0..1."""
    brightness, contrast = (factor.view(-1, 1, 1, 1) for factor in (brightness, contrast))
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (brightness * (contrast * x + (1 - contrast) * mean)).clamp_(0, 1)


def change_colours(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Change the colours of RGB images (batch, 3, height, width) in 0..1; a saturation of 0 gives greys.

    All four are one affine map of a pixel, so their order does not matter. Paper: the hue turns in YIQ rather than
    HSV, and values are cut to 0..1 once, not after each step.
    """
    batch = len(x)
    to_yiq = torch.tensor(_YIQ)
    angle = 2 * math.pi * hue
    cosine, sine, one = saturation * angle.cos(), saturation * angle.sin(), torch.ones(batch)
    zero = torch.zeros(batch)
    turn = torch.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], dim=1).view(batch, 3, 3)
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq * (brightness * contrast)[:, None, None]
    pixels = x.flatten(2)
    luma = to_yiq[0] @ pixels.mean(dim=2).T
    shift = ((1 - contrast) * brightness * luma)[:, None, None]
    return torch.baddbmm(shift, matrix, pixels).clamp_(0, 1).view_as(x)


def _positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Give where `size` pixels of a box lie, (batch, size), in -1..1 from edge to edge."""
    centre = (torch.arange(size) + 0.5) / size
    return (start[:, None] + length[:, None] * centre) * (2 / size) - 1


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(low, high, generator=generator)


def _chance(batch: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(batch, generator=generator) < share
