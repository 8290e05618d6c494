"""Weak and strong views of sensor windows (Um et al. 2017, "Data augmentation of wearable sensor data").

Every random number is hashed from (key, sample), and no sum runs over the batch, so a view has the same bits whatever
batch the window sits in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedssl.data.views.draws import Key, below, between, draws

Floats = NDArray[np.float64]
JITTER = 0.05
"""Standard deviation of the noise, in standard deviations of the channel."""
SCALING = 0.1
"""Standard deviation of a channel's factor about 1."""
TURN = 0.4142135623730951
"""Tangent of half the largest rotation, 45 degrees. Paper: any angle; but gravity tells postures apart."""
SEGMENTS = 4
KNOTS = 5
WARP = 0.35
"""A warped window's speed lies in 1 +- this (standard deviation 0.2)."""


def weak(x: NDArray[np.float32], index: NDArray[np.int64], key: Key, spread: Sequence[float]) -> NDArray[np.float32]:
    """Scale each channel and add noise; `x` is (batch, steps, channels), `index` the samples' numbers.

    `spread` is each channel's standard deviation in the units of `x`.
    """
    _, steps, channels = x.shape
    noise, factor = _parts(index, key, (steps * channels, channels))
    return _jitter(x.astype(np.float64), noise, factor, spread).astype(np.float32)


def strong(x: NDArray[np.float32], index: NDArray[np.int64], key: Key, spread: Sequence[float]) -> NDArray[np.float32]:
    """Turn three-axis sensors, exchange segments, warp time, then as `weak`.

    Channels in threes are axes of one device and turn together; other numbers of channels are not turned.
    """
    _, steps, channels = x.shape
    sizes = (steps * channels, channels, 4, SEGMENTS - 1, SEGMENTS, KNOTS)
    noise, factor, turn, cuts, order, speed = _parts(index, key, sizes)
    out = x.astype(np.float64)
    if channels % 3 == 0:
        out = _rotate(out, turn)
    out = _warp(_permute(out, cuts, order), speed)
    return _jitter(out, noise, factor, spread).astype(np.float32)


def _parts(index: NDArray[np.int64], key: Key, sizes: Sequence[int]) -> list[NDArray[np.uint64]]:
    return np.split(draws(index, key, sum(sizes)), np.cumsum(sizes)[:-1])


def _normal(draw: NDArray[np.uint64]) -> Floats:
    from scipy.special import ndtri

    found: Floats = ndtri((draw + 0.5) * 2.0**-32)
    return found


def _jitter(x: Floats, noise: NDArray[np.uint64], factor: NDArray[np.uint64], spread: Sequence[float]) -> Floats:
    scaled = x * (1 + SCALING * _normal(factor)).T[:, None, :]
    return scaled + _normal(noise).T.reshape(x.shape) * (JITTER * np.asarray(spread))


def _rotate(x: Floats, draw: NDArray[np.uint64]) -> Floats:
    """Turn about a random axis; a quaternion (1, v) turns by twice the arc tangent of |v|."""
    axis = _normal(draw[:3])
    a, b, c = axis / np.sqrt(axis[0] ** 2 + axis[1] ** 2 + axis[2] ** 2) * between(draw[3], -TURN, TURN)
    zero = np.zeros_like(a)
    cross = np.moveaxis(np.array([[zero, -c, b], [c, zero, -a], [-b, a, zero]]), 2, 0)
    twice = (cross[:, :, :, None] * cross[:, None, :, :]).sum(axis=2)
    half = (1 + a**2 + b**2 + c**2)[:, None, None] / 2
    matrix = np.eye(3) + (cross + twice) / half
    batch, steps, channels = x.shape
    axes = x.reshape(batch, steps, channels // 3, 1, 3)
    turned: Floats = (matrix[:, None, None] * axes).sum(axis=-1)
    return turned.reshape(x.shape)


def _permute(x: Floats, cuts: NDArray[np.uint64], order: NDArray[np.uint64]) -> Floats:
    """Cut each window near the quarters and put the segments in a random order."""
    steps, slack = x.shape[1], x.shape[1] // (2 * SEGMENTS)
    middle = np.arange(1, SEGMENTS)[:, None] * steps // SEGMENTS
    ends = middle + below(cuts, 2 * slack + 1) - slack
    segment = (np.arange(steps) >= ends[:, :, None]).sum(axis=0)
    rank = np.take_along_axis(order.T, segment, axis=1)
    source = np.argsort(rank, axis=1, kind="stable")
    return np.take_along_axis(x, source[:, :, None], axis=1)


def _warp(x: Floats, draw: NDArray[np.uint64]) -> Floats:
    """Go through each window at a speed that changes smoothly, from its first step to its last."""
    steps = x.shape[1]
    place = np.linspace(0, KNOTS - 1, steps)
    speeds = between(draw, 1 - WARP, 1 + WARP)
    speed = np.zeros((x.shape[0], steps))
    for knot in range(KNOTS):
        speed += speeds[knot][:, None] * np.maximum(1 - np.abs(place - knot), 0)
    way = np.cumsum(speed, axis=1)
    way = (way - way[:, :1]) / (way[:, -1:] - way[:, :1]) * (steps - 1)
    lower = np.minimum(way.astype(np.int64), steps - 2)
    share = (way - lower)[:, :, None]
    before, after = (np.take_along_axis(x, (lower + i)[:, :, None], axis=1) for i in (0, 1))
    warped: Floats = before * (1 - share) + after * share
    return warped
