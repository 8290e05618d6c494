"""Which of a detector's outputs answer for a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

ANCHOR_THRESHOLD = 4.0


class Targets(NamedTuple):
    """Boxes of a batch: xyxy in pixels (m, 4), class (m,), and the row of the batch that each is in (m,)."""

    boxes: Tensor
    classes: Tensor
    image: Tensor


class Matches(NamedTuple):
    """Pairs of a target and an output of one level.

    `target` and `anchor` (k,) are indices, `cell` float (k, 2) is (column, row), `place` (k,) the index into the
    level's outputs flattened over (image, anchor, row, column).
    """

    target: Tensor
    anchor: Tensor
    cell: Tensor
    place: Tensor


def match(
    boxes: Float[Tensor, "m 4"],
    image: Int[Tensor, " m"],
    anchors: Float[Tensor, "num 2"],
    stride: int,
    grid: tuple[int, int],
    threshold: float = ANCHOR_THRESHOLD,
) -> Matches:
    """Match boxes with a level's anchors and with cells of its grid (rows, columns).

    Anchor: neither side differs by `threshold` times or more. Cell: that of the centre, and its nearest horizontal and
    vertical neighbour inside the grid; a centre in the middle of a cell has none.
    Source: YOLOv5 v6, whose rule FedSTO's detector has.
    """
    ratio = (boxes[:, 2:] - boxes[:, :2])[:, None] / anchors
    fits = torch.maximum(ratio, 1 / ratio).amax(dim=2) < threshold
    cells, inside = _cells((boxes[:, :2] + boxes[:, 2:]) / (2 * stride), grid)
    target, anchor, which = (fits[:, :, None] & inside[:, None]).nonzero(as_tuple=True)
    cell = cells[target, which]
    column, row = cell.long().unbind(dim=1)
    rows, columns = grid
    place = ((image[target] * len(anchors) + anchor) * rows + row) * columns + column
    return Matches(target, anchor, cell, place)


def _cells(centre: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return each centre's cell and two neighbours (m, 3, 2), and which of them count (m, 3)."""
    rows, columns = grid
    last = centre.new_tensor([columns - 1, rows - 1])
    home = centre.floor().clamp(min=0).minimum(last)
    side = (centre - home - 0.5).sign()
    zero = torch.zeros_like(side[:, 0])
    step = torch.stack([torch.zeros_like(side), torch.stack([side[:, 0], zero], 1), torch.stack([zero, side[:, 1]], 1)])
    cells = home + step
    inside = ((cells >= 0) & (cells <= last)).all(dim=2)
    inside[1:] &= (step[1:] != 0).any(dim=2)
    return cells.transpose(0, 1), inside.T
