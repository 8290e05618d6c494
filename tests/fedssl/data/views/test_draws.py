from __future__ import annotations

import numpy as np

from fedssl.data.views.draws import below, between, draws


def splitmix(z: int) -> int:
    mask = (1 << 64) - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_draws_are_splitmix_of_key_index_and_row():
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    got = draws(np.array([0, 5, 1 << 40]), (1 << 64) - 3, 2)
    for column, index in enumerate((0, 5, 1 << 40)):
        seed = splitmix((index * golden + splitmix((1 << 64) - 3)) & mask)
        for row in range(2):
            assert got[row, column] == splitmix((seed + (row + 1) * golden) & mask) >> 32


def test_below_and_between_reach_their_ends_and_no_further():
    ends = np.array([0, (1 << 31) - 1, 1 << 31, (1 << 32) - 1], np.uint64)
    np.testing.assert_array_equal(below(ends, 2), [0, 0, 1, 1])
    np.testing.assert_array_equal(below(ends, np.array([1, 1, 7, 7])), [0, 0, 3, 6])
    values = between(ends, -1.0, 1.0)
    np.testing.assert_array_equal(values[[0, 2]], [-1.0, 0.0])
    assert 0.999 < values[3] < 1.0
