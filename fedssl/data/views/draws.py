"""Random numbers that belong to a sample and not to the batch it sits in."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Key: TypeAlias = "int | NDArray[np.uint64]"
"""What draws are hashed from: one key for a whole batch, or one a sample."""

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draws(index: NDArray[np.int64], key: Key, count: int) -> NDArray[np.uint64]:
    """Return 32-bit random numbers, uint64 (count, batch), hashed from (key, index, row).

    SplitMix64 (Steele et al. 2014), once over key and index, once over the row.
    """
    start = _mix(np.array([key & _MASK], np.uint64) if isinstance(key, int) else key)
    seeds = _mix(index.astype(np.uint64) * np.uint64(_GOLDEN) + start)
    steps = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN))[:, None]
    return _mix(seeds + steps) >> np.uint64(32)


def below(draw: NDArray[np.uint64], limit: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn 32-bit draws into whole numbers 0..limit-1 by Lemire's multiplication."""
    return ((draw * np.asarray(limit, np.uint64)) >> np.uint64(32)).astype(np.int64)


def between(draw: NDArray[np.uint64], low: float, high: float) -> NDArray[np.float64]:
    """Turn 32-bit draws into numbers in [low, high)."""
    return low + (high - low) * (draw.astype(np.float64) * 2.0**-32)
