"""A detector's loss, on labels and on pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from fedssl.models.detection.anchors import STRIDES, decode_boxes
from fedssl.models.detection.assign import ANCHOR_THRESHOLD, Matches, Targets, match
from fedssl.models.detection.select import Detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float
    from torch import Tensor

LossTerms = dict[str, "Tensor"]
"""The unweighted terms `box`, `class` and `objectness`, without graph."""
SURE_OBJECTNESS = 0.99
_BOX = 4
_FOCAL_ALPHA = 0.25


@dataclass(frozen=True)
class LossSettings:
    """Weights and choices of the loss (FedSTO, appendix H.1; `box`, `balance` of levels: EfficientTeacher).

    `obj_target` of a true label: detached `ciou` of its output, or `one`. `box_loss`: `ciou` or `smooth_l1`, in cells.
    `focal` > 0 is the exponent of a focal loss instead of cross-entropy.
    """

    box: float = 0.05
    class_: float = 0.3
    objectness: float = 0.7
    balance: tuple[float, float, float] = (4.0, 1.0, 0.4)
    anchor_threshold: float = ANCHOR_THRESHOLD
    obj_target: str = "ciou"
    box_loss: str = "ciou"
    focal: float = 0.0


class Roles(NamedTuple):
    """What each (pseudo-)label teaches.

    `reliable` (m,): class, and objectness as a true label; `box` (m,): place and size; `soft` (m,): the objectness
    target of one that is not reliable.
    """

    reliable: Tensor
    box: Tensor
    soft: Tensor


DEFAULT = LossSettings()


def detection_loss(
    maps: Sequence[Tensor], targets: Targets, anchors: Float[Tensor, "3 3 2"], settings: LossSettings = DEFAULT
) -> tuple[Float[Tensor, ""], LossTerms]:
    """Give (loss, parts) of a detector's maps on labels: batch size times the weighted sum of three terms.

    Box and class terms are means over a level's matched outputs (0 without any), the objectness term over all of a
    level's outputs, times `balance`; levels are added. Maps: (batch, 3, rows, columns, 5 + classes) a level.
    """
    every = torch.ones(len(targets.boxes), dtype=torch.bool, device=targets.boxes.device)
    return _loss(maps, targets, Roles(every, every, every.float()), anchors, settings)


def pseudo_loss(
    maps: Sequence[Tensor],
    found: Detections,
    anchors: Float[Tensor, "3 3 2"],
    tau1: float = 0.1,
    tau2: float = 0.6,
    settings: LossSettings = DEFAULT,
) -> tuple[Float[Tensor, ""], LossTerms]:
    """Give (loss, parts) of the student's maps on the teacher's boxes; 0, still with a graph, if there are none.

    Images of the batch without a box count as background. Source: Kim et al. 2023 (FedSTO), appendix H.1.
    """
    if len(found.boxes) == 0:
        nothing = torch.stack([level[:0].float().sum() for level in maps]).sum()
        return nothing, dict.fromkeys(("box", "class", "objectness"), nothing.detach())
    roles = pseudo_roles(found.objectness, found.score, tau1, tau2)
    return _loss(maps, Targets(found.boxes, found.classes, found.image), roles, anchors, settings)


def pseudo_roles(objectness: Float[Tensor, " m"], score: Float[Tensor, " m"], tau1: float, tau2: float) -> Roles:
    """Sort pseudo-labels by score: above tau2 reliable, tau1 to tau2 uncertain, below background.

    An objectness above 0.99 is enough for the box term.
    """
    reliable = score > tau2
    return Roles(reliable, reliable | (objectness > SURE_OBJECTNESS), objectness * (score >= tau1))


def _loss(
    maps: Sequence[Tensor], targets: Targets, roles: Roles, anchors: Tensor, settings: LossSettings
) -> tuple[Tensor, LossTerms]:
    """Add the levels' terms."""
    levels = zip(maps, anchors, STRIDES, settings.balance, strict=True)
    terms = []
    for raw, sizes, stride, balance in levels:
        rows, columns = raw.shape[2:4]
        found = match(targets.boxes, targets.image, sizes, stride, (rows, columns), settings.anchor_threshold)
        outputs = raw.reshape(-1, raw.shape[-1]).float()
        box, class_, objectness = _level(outputs, targets, roles, found, sizes, stride, settings)
        terms.append(torch.stack([box, class_, balance * objectness]))
    total = torch.stack(terms).sum(dim=0)
    weights = total.new_tensor([settings.box, settings.class_, settings.objectness])
    box, class_, objectness = total.detach().unbind()
    return len(maps[0]) * (weights * total).sum(), {"box": box, "class": class_, "objectness": objectness}


def _level(
    outputs: Tensor,
    targets: Targets,
    roles: Roles,
    found: Matches,
    sizes: Tensor,
    stride: int,
    settings: LossSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the box, class and objectness term of one level's outputs (cells, 5 + classes)."""
    # index_select adds gradients in order, which indexing does not where many are added at once.
    picked = outputs.index_select(0, found.place)
    goal, reliable = targets.boxes[found.target], roles.reliable[found.target]
    boxes = decode_boxes(picked[:, :_BOX], found.cell, sizes[found.anchor], stride)
    box_loss, ciou = _box_terms(boxes, goal, stride, settings.box_loss)
    hard = ciou.clamp(min=0) if settings.obj_target == "ciou" else torch.ones_like(ciou)
    target = torch.where(reliable, hard, roles.soft[found.target])
    objects = objectness_target(len(outputs), found.place, target, reliable)
    one_hot = torch.nn.functional.one_hot(targets.classes[found.target], outputs.shape[1] - _BOX - 1).to(picked)
    return (
        _mean(box_loss[roles.box[found.target]]),
        _mean(_binary(picked[reliable, _BOX + 1 :], one_hot[reliable], settings.focal)),
        _mean(_binary(outputs[:, _BOX], objects, settings.focal)),
    )


def objectness_target(
    num_cells: int, place: Tensor, value: Float[Tensor, " k"], reliable: Bool[Tensor, " k"]
) -> Float[Tensor, " cells"]:
    """Give each output's objectness target, 0 where nothing is.

    Where several labels meet, a reliable one goes before an uncertain one, then the greater value.
    """
    empty = value.new_zeros(num_cells)
    soft = empty.scatter_reduce(0, place[~reliable], value[~reliable], "amax")
    hard = empty.scatter_reduce(0, place[reliable], value[reliable], "amax")
    return torch.where(torch.zeros_like(empty, dtype=torch.bool).index_fill(0, place[reliable], True), hard, soft)


def _box_terms(boxes: Tensor, goal: Tensor, stride: int, kind: str) -> tuple[Tensor, Tensor]:
    """Give each output's box loss, and its CIoU without graph."""
    from torchvision.ops import complete_box_iou_loss

    loss: Tensor = complete_box_iou_loss(boxes, goal)
    ciou = 1 - loss.detach()
    if kind == "smooth_l1":
        loss = torch.nn.functional.smooth_l1_loss(boxes / stride, goal / stride, reduction="none").mean(dim=1)
    return loss, ciou


def _binary(logits: Tensor, target: Tensor, focal: float) -> Tensor:
    """Give the binary cross-entropy of each output, or the focal loss (Lin et al. 2017)."""
    if focal > 0:
        from torchvision.ops import sigmoid_focal_loss

        made: Tensor = sigmoid_focal_loss(logits, target, _FOCAL_ALPHA, focal)
        return made
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _mean(values: Tensor) -> Tensor:
    """Give the mean, 0 of nothing."""
    return values.sum() / max(1, values.numel())
