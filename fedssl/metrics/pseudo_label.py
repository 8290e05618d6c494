"""Telemetry of pseudo-labels; only the simulator knows the truth, and it trains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedssl.metrics.base import Metric, declare

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from numpy import ndarray
    from torch import Tensor

declare(
    Metric("pseudo_mask_rate", unit="share"),
    Metric("pseudo_precision", unit="share", better="higher"),
    Metric("pseudo_coverage", unit="share", better="higher"),
)


def telemetry(
    pseudo_label: Int[Tensor | ndarray, " batch"],
    mask: Bool[Tensor | ndarray, " batch"],
    truth: Int[Tensor | ndarray, " batch"],
) -> dict[str, tuple[float, float]]:
    """Give (sum, count) pairs, to be added over batches and clients; -1 in `truth` is unknown.

    `pseudo_mask_rate`: kept rows of all rows. `pseudo_precision`: right rows of kept rows with
    known truth. `pseudo_coverage`: kept and right rows of all rows with known truth.
    """
    known = truth >= 0
    kept = mask & known
    num_right = float((kept & (pseudo_label == truth)).sum())
    return {
        "pseudo_mask_rate": (float(mask.sum()), float(len(mask))),
        "pseudo_precision": (num_right, float(kept.sum())),
        "pseudo_coverage": (num_right, float(known.sum())),
    }
