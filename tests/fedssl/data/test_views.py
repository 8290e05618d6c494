"""Tests of fedssl.data.views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedssl.data import views
from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views import ClientData


@pytest.fixture
def data() -> ClientData:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    samples = Samples(x, np.zeros(40, np.int64), np.full(40, -1))
    dataset = Dataset("random", samples, samples, ("a", "b"), (0.5,) * 3, (0.2,) * 3, "key")
    everything = Indices(np.arange(40), np.zeros(0, np.int64))
    return ClientData(0, dataset, everything, samples.y, True, torch.device("cpu"))


@pytest.mark.parametrize("together", [1, 20, 512])
@pytest.mark.parametrize("key", [7, (1 << 64) - 2])
def test_views_made_together_have_the_bits_of_views_made_apart(data, key, together, monkeypatch):
    monkeypatch.setattr(views, "_TOGETHER", together)
    parts = [np.array([3, 1, 4, 1, 5]), np.array([9, 2]), np.array([6, 5, 3, 5]), np.arange(40)]
    found = list(data.weak_batches(parts, key))
    assert len(found) == len(parts)
    for i, (part, x) in enumerate(zip(parts, found, strict=True)):
        assert torch.equal(x, data.weak(part, key + i))
        assert x.stride() == data.weak(part, key + i).stride()


def test_no_parts_give_no_views(data):
    assert list(data.weak_batches([], 0)) == []


def test_all_classes_are_seen_unless_the_split_says_otherwise(data):
    assert data.kinds.tolist() == [0, 0]
    kinds = np.array([0, 2], np.int8)
    told = replace(data, kinds=kinds)
    assert told.kinds is kinds
    assert replace(told, client_id=3).kinds is kinds
