"""Tests of fedssl.data.batches."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from fedssl.data.batches import batches

INDEX = np.array([3, 5, 8, 13, 21], np.int64)


def draw(index: np.ndarray, size: int, count: int, seed: int = 0) -> list[list[int]]:  # type: ignore[type-arg]
    return [batch.tolist() for batch in batches(index, size, count, np.random.default_rng(seed))]


def test_batches_are_passes_cut_into_equal_parts():
    found = draw(INDEX, 2, 5)
    assert [len(batch) for batch in found] == [2] * 5
    flat = [*chain(*found)]
    assert sorted(flat[:5]) == sorted(flat[5:]) == INDEX.tolist()


def test_each_pass_has_a_new_order():
    flat = [*chain(*draw(INDEX, 5, 20))]
    assert len({tuple(flat[i : i + 5]) for i in range(0, 100, 5)}) > 10


@pytest.mark.parametrize(
    ("samples", "size", "expected"), [(5, 3, 3), (5, 5, 5), (5, 9, 5), (5, 1, 2), (1, 1, 2), (1, 9, 2), (0, 4, 0)]
)
def test_the_size_of_a_batch(samples: int, size: int, expected: int):
    assert [len(batch) for batch in draw(INDEX[:samples], size, 3)] == [expected] * 3


def test_one_sample_fills_a_batch_of_two():
    assert draw(INDEX[:1], 4, 2) == [[3, 3], [3, 3]]


def test_the_generator_decides_the_order():
    assert draw(INDEX, 2, 7) == draw(INDEX, 2, 7) != draw(INDEX, 2, 7, seed=1)


def test_no_batches_are_asked_of_it():
    assert draw(INDEX, 2, 0) == []
