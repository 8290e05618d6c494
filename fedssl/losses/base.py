"""Sums and counts of a loss and its telemetry, so that means over steps and clients are exact."""

from __future__ import annotations

Counts = dict[str, tuple[float, float]]
"""Name to (sum, count)."""


def add(total: Counts, counts: Counts) -> None:
    """Add (sum, count) pairs into `total`."""
    for name, (value, weight) in counts.items():
        before = total.get(name, (0.0, 0.0))
        total[name] = (before[0] + value, before[1] + weight)
