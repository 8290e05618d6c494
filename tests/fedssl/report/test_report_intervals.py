"""Intervals against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from fedssl.report.intervals import paired_difference, t_interval


def test_t_interval_of_one_two_three() -> None:
    # s = 1, n = 3, t(0.975, 2) = 4.302653: half = 4.302653 / sqrt(3).
    found = t_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert found.n == 3


def test_one_value_has_no_interval() -> None:
    found = t_interval([0.7])
    assert found.mean == 0.7
    assert math.isnan(found.half)


def test_no_value_has_no_mean() -> None:
    assert math.isnan(t_interval([]).mean)


def test_paired_difference_pairs_by_seed() -> None:
    # Differences 0.2 and 0.4: mean 0.3, s = 0.141421, t(0.975, 1) = 12.7062, half = 1.27062.
    found = paired_difference({1: 0.5, 2: 0.1}, {2: 0.5, 1: 0.7})
    assert found is not None
    assert found.mean == pytest.approx(0.3)
    assert found.half == pytest.approx(1.27062, abs=1e-5)


@pytest.mark.parametrize("other", [{1: 0.5, 3: 0.2}, {1: 0.5}])
def test_other_seeds_are_not_paired(other: dict[int, float]) -> None:
    assert paired_difference({1: 0.5, 2: 0.1}, other) is None
