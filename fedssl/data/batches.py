"""Index batches, endless and shuffled anew each pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def batches(
    index: NDArray[np.int64], batch_size: int, num_batches: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Return `num_batches` batches of equal size from passes over `index`, each pass in a new order.

    A batch has min(batch_size, len(index)) samples, but at least 2 so that batch norm can run; a pass may end inside
    a batch. An empty `index` gives empty batches.
    """
    size = max(2, min(batch_size, len(index))) if len(index) else 0
    passes = -(-num_batches * size // max(1, len(index)))
    order = [generator.permutation(index) for _ in range(passes)]
    flat = np.concatenate(order) if order else index[:0]
    for i in range(num_batches):
        yield flat[i * size : (i + 1) * size]
