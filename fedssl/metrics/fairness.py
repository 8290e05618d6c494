"""How evenly a score is spread over clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy import ndarray


def spread(values: Float[ndarray, " clients"]) -> dict[str, float]:
    """Give mean, std (population), p10, min, max and gini over the clients that have a value.

    All NaN where no client has one.
    """
    known = np.sort(values[~np.isnan(values)].astype(np.float64))
    if known.size == 0:
        return dict.fromkeys(("mean", "std", "p10", "min", "max", "gini"), float("nan"))
    return {
        "mean": float(known.mean()),
        "std": float(known.std()),
        "p10": float(np.percentile(known, 10)),
        "min": float(known[0]),
        "max": float(known[-1]),
        "gini": _gini(known),
    }


def _gini(ascending: Float[ndarray, " n"]) -> float:
    # Mean absolute difference over twice the mean, in its sorted form; 0 = all equal.
    n, total = len(ascending), ascending.sum()
    if total == 0:
        return 0.0
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float((weights * ascending).sum() / (n * total))
