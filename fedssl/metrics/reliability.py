"""The numbers behind a reliability diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedssl.metrics.classification import confidence_bins

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from numpy import ndarray


def reliability(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"], bins: int = 15) -> dict[str, list[float]]:
    """Give mean `confidence`, `accuracy` and `count` of every equal-width bin; 0 in an empty one.

    Source: Guo et al. 2017, section 2.
    """
    if len(y) == 0:
        return {name: [0.0] * bins for name in ("confidence", "accuracy", "count")}
    confidence, is_right, bin_ = confidence_bins(logits, y, bins)
    count = np.bincount(bin_, minlength=bins)
    divisor = np.maximum(count, 1)
    return {
        "confidence": (np.bincount(bin_, weights=confidence, minlength=bins) / divisor).tolist(),
        "accuracy": (np.bincount(bin_, weights=is_right, minlength=bins) / divisor).tolist(),
        "count": count.astype(np.float64).tolist(),
    }
