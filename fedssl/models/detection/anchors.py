"""Anchors: the nine box sizes that a detector's outputs are relative to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

STRIDES = (8, 16, 32)
"""Pixels a cell of the three levels."""
PER_LEVEL = 3
LEAST_SIDE = 1e-3
_COUNT = PER_LEVEL * len(STRIDES)
_COCO_SIZE = 640
_COCO = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)


def coco_anchors(size: int) -> Float[Tensor, "3 3 2"]:
    """Return YOLOv5's anchors for COCO, scaled to images of side `size`: (level, anchor, width and height), pixels."""
    return torch.tensor(_COCO, dtype=torch.float32).mul(size / _COCO_SIZE).view(len(STRIDES), PER_LEVEL, 2)


def anchors_from(boxes: NDArray[np.floating], seed: int) -> Float[Tensor, "3 3 2"]:
    """Return nine sizes by k-means over those of boxes (m, 4), sorted by area: (level, anchor, 2), to 0.01 pixels.

    With fewer than nine distinct sizes some are repeated. Raises ValueError without boxes.
    """
    if len(boxes) == 0:
        raise ValueError("anchors need at least one box")
    sides = np.asarray(boxes[:, 2:] - boxes[:, :2], dtype=np.float64)
    sizes = np.unique(sides, axis=0)
    centres = _centres(sides, seed) if len(sizes) > _COUNT else sizes
    centres = centres[np.lexsort((centres[:, 0], centres.prod(axis=1)))]
    chosen = centres[np.linspace(0, len(centres) - 1, _COUNT).round().astype(int)]
    return torch.from_numpy(chosen.round(2).astype(np.float32)).view(len(STRIDES), PER_LEVEL, 2)


def decode_boxes(
    raw: Float[Tensor, "*place 4"],
    cell: Float[Tensor, "*#place 2"],
    anchor: Float[Tensor, "*#place 2"],
    stride: int,
) -> Float[Tensor, "*place 4"]:
    """Return boxes xyxy in pixels from outputs tx, ty, tw, th of cells (column, row).

    Centre (2 sigmoid(t) - 0.5 + cell) stride, side (2 sigmoid(t))^2 anchor, which is at least 0.001 pixels: a side
    that is lost beside its coordinates would have no ratio. Source: YOLOv5 v6.
    """
    unit = 2 * raw.sigmoid()
    centre = (unit[..., :2] - 0.5 + cell) * stride
    half = (unit[..., 2:].square() * anchor).clamp(min=LEAST_SIDE) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _centres(sides: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # One thread: the order of sums, and so the bits, may not depend on the cores.
    with threadpool_limits(1):
        found = KMeans(_COUNT, n_init=10, random_state=seed % 2**32).fit(sides)
    return np.asarray(found.cluster_centers_, dtype=np.float64)
