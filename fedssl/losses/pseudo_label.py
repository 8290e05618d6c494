"""The consistency term of FixMatch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


def pseudo_label_loss(
    logits_ulb_w: Float[Tensor, "batch classes"],
    logits_ulb_s: Float[Tensor, "batch classes"],
    threshold: float,
) -> tuple[Float[Tensor, ""], Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Give (loss, pseudo_label, mask): the strong view learns what the confident weak view says.

    The loss is the mean over all rows of mask times cross-entropy; no gradient reaches
    `logits_ulb_w`; `threshold` is in 0..1.
    Source: Sohn et al. 2020 (FixMatch), eq. 4.
    """
    probability, pseudo_label = torch.softmax(logits_ulb_w.detach().float(), dim=1).max(dim=1)
    mask = probability >= threshold
    if len(mask) == 0:
        return logits_ulb_s.float().sum(), pseudo_label, mask
    loss = torch.nn.functional.cross_entropy(logits_ulb_s.float(), pseudo_label, reduction="none")
    return (loss * mask).mean(), pseudo_label, mask
