"""Tiny data sets, the clients that hold parts of them, and a check of the shapes in annotations."""

from __future__ import annotations

from collections.abc import Callable

import beartype
import jaxtyping
import numpy as np
import pytest
import torch

from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views.client_data import ClientData

MakeClient = Callable[..., ClientData]
NUM_TRAIN, NUM_TEST, NUM_SERVER = 24, 6, 12


@pytest.fixture
def dataset() -> Dataset:
    rng = np.random.default_rng(0)

    def samples(count: int) -> Samples:
        y = np.arange(count, dtype=np.int64) % 3
        x = rng.integers(0, 80, (count, 8, 8, 1)) + 80 * y[:, None, None, None]
        return Samples(x.astype(np.uint8), y, np.full(count, -1, np.int64))

    return Dataset("tiny", samples(NUM_TRAIN), samples(NUM_TEST), ("a", "b", "c"), (0.5,), (0.25,), "tiny")


@pytest.fixture
def client(dataset: Dataset, windows: Dataset, scenes: Dataset) -> MakeClient:
    """Give a maker of client 1 with the first samples labelled and the next ones unlabelled."""

    def make(num_labelled: int, num_unlabelled: int, *, sensing: bool = False, detecting: bool = False) -> ClientData:
        chosen = scenes if detecting else windows if sensing else dataset
        index = np.arange(NUM_TRAIN, dtype=np.int64)
        held = index[num_labelled : num_labelled + num_unlabelled]
        indices = Indices(index[:num_labelled], held, test=np.arange(NUM_TEST, dtype=np.int64))
        given = np.full(len(chosen.train), -1, np.int64)
        given[:num_labelled] = chosen.train.y[:num_labelled]
        return ClientData(1, chosen, indices, given, False, torch.device("cpu"))

    return make


@pytest.fixture
def windows() -> Dataset:
    """Give windows of group 1, the clients', and behind them those of the server's groups 0, 2 and 3."""
    rng = np.random.default_rng(1)

    def samples(count: int, of_server: int) -> Samples:
        y = np.arange(count + of_server, dtype=np.int64) % 3
        x = rng.normal(size=(len(y), 8, 3)) + y[:, None, None]
        group = np.concatenate([np.ones(count, np.int64), np.array([0, 2, 3] * of_server)[:of_server]])
        return Samples(x.astype(np.float32), y, group)

    train, test = samples(NUM_TRAIN, NUM_SERVER), samples(NUM_TEST, 0)
    names, mean, std = ("a", "b", "c"), (0.0,) * 3, (3.0,) * 3
    return Dataset("tiny windows", train, test, names, mean, std, "tiny windows", limit=1.0, server_groups=(0, 2, 3))


@pytest.fixture
def scenes() -> Dataset:
    """Give dark pictures of 64 pixels with one bright square each, but for every eighth, which has none."""
    rng = np.random.default_rng(2)

    def samples(count: int) -> Samples:
        y = np.where(np.arange(count) % 8 == 7, -1, np.arange(count, dtype=np.int64) % 3)
        x = rng.integers(0, 60, (count, 64, 64, 3), dtype=np.uint8)
        boxes = []
        for i in np.flatnonzero(y >= 0):
            left, top, side = (int(v) for v in rng.integers([4, 4, 16], [30, 30, 32]))
            x[i, top : top + side, left : left + side, y[i]] = 250
            boxes.append([left, top, left + side, top + side])
        offsets = np.cumsum([0, *(y >= 0)], dtype=np.int64)
        group, domain = np.full(count, -1, np.int64), np.arange(count, dtype=np.int64) % 2
        return Samples(x, y, group, np.array(boxes, np.float32), y[y >= 0], offsets, domain)

    train, test = samples(NUM_TRAIN), samples(NUM_TEST)
    names, zeros, ones = ("a", "b", "c"), (0.0,) * 3, (1.0,) * 3
    return Dataset("tiny scenes", train, test, names, zeros, ones, "tiny scenes", domain_names=("cloudy", "rainy"))


@pytest.fixture
def checked(monkeypatch):
    """Wrap a function so that the shapes in its annotations are checked at run time."""

    def wrap(module, name):
        for kind in ("Float", "Int", "Bool"):
            monkeypatch.setattr(module, kind, getattr(jaxtyping, kind), raising=False)
        monkeypatch.setattr(module, "Tensor", torch.Tensor, raising=False)
        return jaxtyping.jaxtyped(typechecker=beartype.beartype)(getattr(module, name))

    return wrap
