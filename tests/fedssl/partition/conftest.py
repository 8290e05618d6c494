from __future__ import annotations

import numpy as np
import pytest

from fedssl.data.base import Dataset, Samples


@pytest.fixture
def dataset() -> Dataset:
    """600 training samples, 100 of them of unknown class, and 200 test samples of 5 classes."""
    y = np.concatenate([np.repeat(np.arange(5), 100), np.full(100, -1)])

    def samples(y: np.ndarray) -> Samples:
        return Samples(np.zeros((len(y), 8, 8, 1), np.uint8), y, np.full(len(y), -1))

    test = samples(np.repeat(np.arange(5), 40))
    return Dataset("toy", samples(y), test, ("a", "b", "c", "d", "e"), (0.5,), (0.5,), "key")
