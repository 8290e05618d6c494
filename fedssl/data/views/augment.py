"""Weak and strong views of whole batches, and normalisation.

All arithmetic on pixels is on integers, and every random number is hashed from (key, sample), so a
view has the same bits whatever batch the sample sits in.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data.views.draws import Key, below, draws
from fedssl.data.views.operations import apply_operation

GREY = 127
_WEAK_DRAWS = 3
_STRONG_DRAWS = 10


def weak(x: torch.Tensor, index: NDArray[np.int64], key: Key, *, flip: bool) -> torch.Tensor:
    """Shift by up to an eighth of each side, reflecting; with `flip`, mirror half of the samples.

    `x` is uint8 (batch, height, width, channels), `index` the samples' numbers in the data set.
    """
    return torch.from_numpy(_weak(x.numpy(), draws(index, key, _WEAK_DRAWS), flip=flip))


def strong(x: torch.Tensor, index: NDArray[np.int64], key: Key, *, flip: bool) -> torch.Tensor:
    """Return the weak view, changed by two random operations of FixMatch's table and a cutout.

    FixMatch (Sohn et al. 2020), table 12; operations are drawn with replacement, and the cutout is
    a grey square of up to half the shorter side.
    """
    draw = draws(index, key, _STRONG_DRAWS)
    out = _weak(x.numpy(), draw, flip=flip)
    out = apply_operation(out, draw[3], draw[4])
    out = apply_operation(out, draw[5], draw[6])
    return torch.from_numpy(_cutout(out, draw[7:10]))


def normalise(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return (x / 255 - mean) / std as float32 (batch, channels, height, width), channels_last."""
    batch, height, width, channels = x.shape
    # Whole rows at once: a channel axis of three would be the inner loop.
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), width if channels > 1 else 1, x.device)
    flat = x.reshape(batch * height, width * channels).to(torch.float32)
    flat.mul_(scale).add_(shift)
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=64)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], repeats: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `normalise` multiplies by and adds, float32 (channels * repeats,); never written to."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale.repeat(repeats), shift.repeat(repeats)


def _reflect(position: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    position = np.abs(position)
    return (size - 1) - np.abs((size - 1) - position)


def _weak(x: NDArray[np.uint8], draw: NDArray[np.uint64], *, flip: bool) -> NDArray[np.uint8]:
    batch, height, width, channels = x.shape
    down, right = height // 8, width // 8
    rows = np.arange(height) + (below(draw[0], 2 * down + 1) - down)[:, None]
    columns = np.broadcast_to(np.arange(width), (batch, width))
    if flip:
        columns = np.where((draw[2] & np.uint64(1)).astype(bool)[:, None], columns[:, ::-1], columns)
    columns = columns + (below(draw[1], 2 * right + 1) - right)[:, None]
    starts = (_reflect(rows, height) + np.arange(0, batch * height, height)[:, None]) * width
    pixels = starts[:, :, None] + _reflect(columns, width)[:, None, :]
    out: NDArray[np.uint8] = x.reshape(-1, channels).take(pixels, axis=0)
    return out


def _cutout(x: NDArray[np.uint8], draw: NDArray[np.uint64]) -> NDArray[np.uint8]:
    batch, height, width, channels = x.shape
    side = below(draw[0], min(height, width) // 2 + 1)
    rows = _inside(height, below(draw[1], height), side)
    columns = _inside(width, below(draw[2], width), side).repeat(channels, axis=1)
    hole = rows[:, :, None] & columns[:, None, :]
    flat = x.reshape(batch, height, width * channels)
    out: NDArray[np.uint8] = (flat & ~hole) | (hole & np.uint8(GREY))
    return out.reshape(x.shape)


def _inside(size: int, centre: NDArray[np.int64], side: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return 255 within `side` positions about the centre, cut off at the border, else 0."""
    offset = np.arange(size) - (centre - side // 2)[:, None]
    return ((offset >= 0) & (offset < side[:, None])).view(np.uint8) * np.uint8(255)
