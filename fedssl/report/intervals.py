"""Means over seeds with 95 % t-intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and the half-width of its interval; NaN half-width below two values."""

    mean: float
    half: float
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Give the mean of independent values and its t-interval: t(n-1) s / sqrt(n), s with n-1."""
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, n)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, float(t.ppf(0.5 + level / 2, n - 1)) * std / math.sqrt(n), n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Interval | None:
    """Give the mean of `b - a` by seed; None unless both hold the same two or more seeds."""
    if set(a) != set(b) or len(a) < 2:
        return None
    return t_interval([b[seed] - a[seed] for seed in sorted(a)])
