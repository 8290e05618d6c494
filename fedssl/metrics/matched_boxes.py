"""Telemetry of pseudo-boxes; only the simulator knows the true ones, and they train nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedssl.metrics.base import Metric, declare

if TYPE_CHECKING:
    from torch import Tensor

Boxes = tuple["Tensor", "Tensor", "Tensor"]
"""Boxes (m, 4) xyxy, their classes (m,) and pictures (m,)."""
declare(
    Metric("pseudo_per_image", unit="count"),
    Metric("pseudo_reliable_per_image", unit="count"),
)


def num_matched(found: Boxes, score: Tensor, true: Boxes, min_iou: float = 0.5) -> int:
    """Give how many found boxes meet a true one of their picture and class at this IoU, each true one once.

    Boxes choose in order of `score` (m,), the best first, the true box that overlaps most of those still free.
    """
    import torch
    from torchvision.ops import box_iou

    (boxes, classes, image), (true_boxes, true_classes, true_image) = found, true
    if not len(boxes) or not len(true_boxes):
        return 0
    same = (image[:, None] == true_image) & (classes[:, None] == true_classes)
    iou = torch.where(same, box_iou(boxes.float(), true_boxes.float()), -1.0)
    iou = iou[torch.argsort(score, descending=True, stable=True)]
    matched = 0
    for i in range(len(iou)):
        best, column = iou[i].max(dim=0)
        if float(best) >= min_iou:
            matched += 1
            iou[:, column] = -1.0
    return matched


def telemetry(
    found: Boxes, score: Tensor, reliable: Tensor, true: Boxes, num_images: int
) -> dict[str, tuple[float, float]]:
    """Give (sum, count) pairs, to be added over batches and clients.

    `pseudo_per_image`, `pseudo_reliable_per_image`: boxes and reliable ones a picture. `pseudo_mask_rate`: reliable of
    all. `pseudo_precision`: reliable ones that match a true box at IoU 0.5. `pseudo_coverage`: true boxes so matched.
    """
    kept = (found[0][reliable], found[1][reliable], found[2][reliable])
    right = float(num_matched(kept, score[reliable], true))
    number, sure = float(len(found[0])), float(reliable.sum())
    return {
        "pseudo_per_image": (number, float(num_images)),
        "pseudo_reliable_per_image": (sure, float(num_images)),
        "pseudo_mask_rate": (sure, number),
        "pseudo_precision": (right, sure),
        "pseudo_coverage": (right, float(len(true[0]))),
    }
