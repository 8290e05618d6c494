"""Terms that hold back classes which are easy: adaptive margin, entropy of the mean, uncertainty regulariser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_SCALE = 10.0
_MAX_UNCERTAINTY = 0.5
_LEAST = 1e-8


def margin_logits(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"], uncertainty: float
) -> Float[Tensor, "batch classes"]:
    """Give the logits with 10 min(u, 0.5) added to the true class, so that seen classes learn slower while u is high.

    Source: Cao et al. 2022 (ORCA), eq. 4, with the sign and the cap of its code.
    """
    truth = torch.nn.functional.one_hot(y, logits.shape[1])
    return logits + _SCALE * min(uncertainty, _MAX_UNCERTAINTY) * truth


def entropy_term(probability: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """Give minus the entropy of the batch's mean prediction, in nats; 0 for an empty batch.

    Source: Cao et al. 2022 (ORCA), eq. 7, with a uniform prior.
    """
    if len(probability) == 0:
        return probability.sum()
    mean = probability.mean(dim=0).clamp(min=_LEAST)
    return (mean * mean.log()).sum()


def uncertainty_loss(
    probability: Float[Tensor, "batch classes"],
    counts: Int[Tensor, " classes"],
    tau: float,
    reading: str = "A",
) -> Float[Tensor, ""]:
    """Give R, the mean over rows of weight times 1 - max p; 0 for an empty batch or reading `off`.

    `counts` are predictions a class. Weight of a row predicted as c: tau^(1 - counts_c / max), in (0, 1], without
    gradient; tau where nothing was predicted yet. Readings: `A` as printed, `B` its negative, `C` with the exponent
    counts_c / max, so that rare classes weigh more.
    Source: Zhang et al. 2023 (FedoSSL), eq. 5. Raises ValueError for another reading.
    """
    if reading not in ("A", "B", "C", "off"):
        raise ValueError(f"reading={reading!r} is not A, B, C or off")
    if len(probability) == 0 or reading == "off":
        return probability[:0].sum()
    confidence, predicted = probability.max(dim=1)
    value = (class_weights(counts, tau, reading).to(confidence)[predicted] * (1 - confidence)).mean()
    return -value if reading == "B" else value


def class_weights(counts: Int[Tensor, " classes"], tau: float, reading: str) -> Float[Tensor, " classes"]:
    """Give the weight of each predicted class in R, float64."""
    most = int(counts.max())
    if most == 0:
        return torch.full((len(counts),), tau, dtype=torch.float64, device=counts.device)
    share = counts.double() / most
    weights: Tensor = tau ** (share if reading == "C" else 1 - share)
    return weights
