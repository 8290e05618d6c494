"""What a detector finds: its outputs filtered by score and overlap. A teacher's findings are pseudo-labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MIN_SCORE, OVERLAP, MOST = 0.1, 0.65, 100
"""A teacher's filter (Kim et al. 2023, appendix H)."""
_CANDIDATES = 3000


class Detections(NamedTuple):
    """Boxes found in a batch, by image and falling score.

    `boxes` xyxy in pixels (m, 4), `classes`, `image` (the row of the batch), `objectness`, `score` (m,).
    """

    boxes: Tensor
    classes: Tensor
    image: Tensor
    objectness: Tensor
    score: Tensor

    def where(self, keep: Tensor) -> Detections:
        """Return the detections at a mask or index over the boxes."""
        return Detections(*(part[keep] for part in self))


def select_boxes(
    boxes: Float[Tensor, "batch n 4"],
    objectness: Float[Tensor, "batch n"],
    class_probability: Float[Tensor, "batch n classes"],
    *,
    min_score: float = MIN_SCORE,
    overlap: float = OVERLAP,
    most: int = MOST,
) -> Detections:
    """Return each image's boxes of score >= `min_score`, without those that a better one of their class covers.

    score = objectness * greatest class probability. Of two boxes of a class with IoU above `overlap` the better stays;
    at most `most` an image, of the 3000 best. An image's boxes do not depend on the rest of the batch. No gradient.
    """
    with torch.no_grad():
        probability, classes = class_probability.max(dim=2)
        score = objectness * probability
        parts = []
        for image in range(len(boxes)):
            index = (score[image] >= min_score).nonzero()[:, 0]
            kept = index[_keep(boxes[image, index], score[image, index], classes[image, index], overlap)[:most]]
            row = torch.full_like(kept, image)
            parts.append((boxes[image, kept], classes[image, kept], row, objectness[image, kept], score[image, kept]))
        empty = (boxes[:0, 0], classes[:0, 0], classes[:0, 0], score[:0, 0], score[:0, 0])
        return Detections(*(torch.cat(part) for part in zip(empty, *parts, strict=True)))


def _keep(boxes: Tensor, score: Tensor, classes: Tensor, overlap: float) -> Tensor:
    """Return the indices of the boxes that stay, best first, equal scores by index."""
    from torchvision.ops import batched_nms

    order = score.argsort(descending=True, stable=True)[:_CANDIDATES]
    if len(order) == 0:
        return order
    # Classes are kept apart by shifts of the greatest coordinate, which needs coordinates >= 0 and many digits.
    placed = boxes[order].cpu().double()
    kept = batched_nms(placed - placed.min(), score[order].cpu().double(), classes[order].cpu(), overlap)
    return order[kept.sort().values.to(order.device)]
