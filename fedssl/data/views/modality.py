"""What depends on the kind of samples: uint8 pictures have four axes, float32 sensor windows three."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data.views import augment, motion
from fedssl.data.views.draws import Key

BOUND = 3.0
"""Standard deviations of a channel at which bounded model input ends."""


def holds_windows(shape: Sequence[int]) -> bool:
    """Return whether samples of this shape, without the batch axis, are windows (steps, channels)."""
    return len(shape) == 2


def model_input(x: torch.Tensor, mean: Sequence[float], std: Sequence[float], limit: float = 0.0) -> torch.Tensor:
    """Return what models take, float32, of samples as a `Dataset` holds them.

    Pictures: (x / 255 - mean) / std, (batch, channels, height, width) in channels_last layout. Windows:
    (x - mean) / std, clipped at +-`limit` if that is above 0, contiguous (batch, channels, steps).
    """
    if x.ndim == 4:
        return augment.normalise(x, mean, std)
    out = (x - torch.tensor(mean, device=x.device)) / torch.tensor(std, device=x.device)
    if limit > 0:
        out.clamp_(-limit, limit)
    return out.transpose(1, 2).contiguous()


def deviations(std: Sequence[float], limit: float) -> tuple[float, ...]:
    """Return each channel's standard deviation from a data set's `std` and `limit`."""
    return tuple(value * limit / BOUND for value in std) if limit > 0 else tuple(std)


def weak(x: torch.Tensor, index: NDArray[np.int64], key: Key, *, flip: bool, spread: Sequence[float]) -> torch.Tensor:
    """Return slightly changed samples; `flip` is for pictures, `spread` (channels,), see `deviations`, for windows."""
    if x.ndim == 4:
        return augment.weak(x, index, key, flip=flip)
    return torch.from_numpy(motion.weak(x.numpy(), index, key, spread))


def strong(x: torch.Tensor, index: NDArray[np.int64], key: Key, *, flip: bool, spread: Sequence[float]) -> torch.Tensor:
    """Return strongly changed samples; arguments as in `weak`."""
    if x.ndim == 4:
        return augment.strong(x, index, key, flip=flip)
    return torch.from_numpy(motion.strong(x.numpy(), index, key, spread))
