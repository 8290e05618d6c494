"""A tiny data set and the clients that hold parts of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views import ClientData

MakeClient = Callable[..., ClientData]
NUM_TRAIN, NUM_TEST = 24, 6


@pytest.fixture
def dataset() -> Dataset:
    rng = np.random.default_rng(0)

    def samples(count: int) -> Samples:
        y = np.arange(count, dtype=np.int64) % 3
        x = rng.integers(0, 80, (count, 8, 8, 1)) + 80 * y[:, None, None, None]
        return Samples(x.astype(np.uint8), y, np.full(count, -1, np.int64))

    return Dataset("tiny", samples(NUM_TRAIN), samples(NUM_TEST), ("a", "b", "c"), (0.5,), (0.25,), "tiny")


@pytest.fixture
def client(dataset: Dataset) -> MakeClient:
    """Give a maker of client 1 with the first samples labelled and the next ones unlabelled."""

    def make(num_labelled: int, num_unlabelled: int) -> ClientData:
        index = np.arange(NUM_TRAIN, dtype=np.int64)
        held = index[num_labelled : num_labelled + num_unlabelled]
        indices = Indices(index[:num_labelled], held, test=np.arange(NUM_TEST, dtype=np.int64))
        given = np.where(index < num_labelled, dataset.train.y, -1)
        return ClientData(1, dataset, indices, given, False, torch.device("cpu"))

    return make
