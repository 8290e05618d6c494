"""Steps of a detector's training that clients and server share: optimiser, modes, frozen parts, pseudo-boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data.views.box_augment import Transform, place_boxes
from fedssl.data.views.client_data import ClientData
from fedssl.federation import State
from fedssl.metrics.matched_boxes import telemetry
from fedssl.models.detection.anchors import anchors_from
from fedssl.models.detection.select import Detections, select_boxes
from fedssl.rng import Rng
from fedssl.training.sgd import SGD

BACKBONE, HEAD, ANCHORS = "backbone", "head", "head.anchors"
MOST_FAILED = 0.1
"""Share of steps that may have no finite loss or gradient."""


class Phase(NamedTuple):
    """What trains in a round: `frozen` parts of the network stay, at the clients, as the server sent them."""

    number: int = 0
    frozen: tuple[str, ...] = ()


EVERYTHING = Phase()


class LocalModels(NamedTuple):
    """A client's models in a round: the one that trains, the labeller, and what follows each step, with its decay."""

    model: torch.nn.Module
    teacher: torch.nn.Module
    followers: Sequence[tuple[torch.nn.Module, float]]


class Supervised(NamedTuple):
    """What the server's epochs gave: momentum by parameter, the mean loss (NaN without steps), steps that failed."""

    momentum: State
    loss: float
    failed: int


@dataclass(frozen=True)
class Filter:
    """Which of a teacher's detections become pseudo-boxes: least score, largest overlap (IoU), most boxes an image."""

    min_score: float
    overlap: float
    most: int

    def __call__(self, teacher: torch.nn.Module, x: torch.Tensor) -> Detections:
        """Return the boxes that the teacher finds in images, in eval mode and without gradients."""
        teacher.eval()
        with torch.no_grad():
            made = teacher.decode(teacher(x))  # type: ignore[operator]
        return select_boxes(*made, min_score=self.min_score, overlap=self.overlap, most=self.most)


def set_anchors(model: torch.nn.Module, data: ClientData, rng: Rng) -> None:
    """Set a detector's anchors to fit the labelled boxes of some data; without boxes they stay."""
    if data.dataset.train.holds_boxes:
        boxes, _, _ = data.dataset.train.boxes_at(data.labelled)
        if len(boxes):
            model.get_buffer(ANCHORS).copy_(anchors_from(boxes, rng.key("anchors")))


def moved(found: Detections, transform: Transform) -> Detections:
    """Map boxes from weak to strong views; drop boxes that are mostly outside."""
    boxes, view, row = place_boxes(found.boxes, found.image, transform)
    return found.where(row)._replace(boxes=boxes, image=view)


def counted(
    found: Detections, data: ClientData, index: NDArray[np.int64], tau2: float
) -> dict[str, tuple[float, float]]:
    """Count pseudo-boxes, those above tau2 as reliable, in images whose true boxes are known."""
    known = torch.from_numpy(data.annotated(index)).to(found.image.device)
    told = found.where(torch.nonzero(known[found.image]).flatten())
    boxes, reliable = (told.boxes, told.classes, told.image), told.score > tau2
    return telemetry(boxes, told.score, reliable, data.true_boxes(index), int(known.sum()))


def part_of(name: str) -> str:
    """Return the part of the network that a tensor belongs to: backbone, neck or head."""
    return name.partition(".")[0]


@contextmanager
def frozen(model: torch.nn.Module, parts: Sequence[str]) -> Iterator[None]:
    """Take the parameters of some parts out of training; at the end all are back in."""
    held = [parameter for name, parameter in model.named_parameters() if part_of(name) in parts]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def set_modes(model: torch.nn.Module, parts: Sequence[str], num_images: int) -> None:
    """Put the model into training mode; frozen parts, and all of it for one picture, keep their batch statistics."""
    model.train(num_images > 1)
    for name in parts:
        model.get_submodule(name).eval()


def sgd(model: torch.nn.Module, lr: float, momentum: float, weight_decay: float) -> SGD:
    """Return SGD over what trains; weights alone decay, not biases and batch norm."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return SGD(groups, lr, momentum)


def momenta(model: torch.nn.Module, optimizer: SGD) -> State:
    """Copy an optimiser's momentum by parameter name."""
    found = {name: optimizer.state.get(p, {}).get("momentum_buffer") for name, p in model.named_parameters()}
    return {name: tensor.clone() for name, tensor in found.items() if tensor is not None}


def restore(model: torch.nn.Module, optimizer: SGD, kept: State) -> None:
    """Put back what `momenta` gave."""
    for name, parameter in model.named_parameters():
        if name in kept:
            # In the parameter's own layout: a fused step goes over both as they lie in memory.
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).detach().copy_(kept[name])


class Statistics:
    """What a forward pass changes, the buffers of batch norm, to be put back after a step that failed."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._buffers = list(model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Copy the buffers as they are now."""
        for kept, buffer in zip(self._kept, self._buffers, strict=True):
            kept.copy_(buffer)

    def put_back(self) -> None:
        """Restore the buffers that were copied last."""
        for kept, buffer in zip(self._kept, self._buffers, strict=True):
            buffer.copy_(kept)


def check_failed(failed: float, tried: float, where: str = "") -> None:
    """Raise FloatingPointError, beginning with `where`, if more than `MOST_FAILED` of the steps failed."""
    if failed > MOST_FAILED * tried:
        raise FloatingPointError(f"{where}{failed:g} of {tried:g} steps had no finite loss")


def is_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return whether no tensor holds infinity or NaN."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def take_step(optimizer: SGD, loss: torch.Tensor, clip: float) -> bool:
    """Step along the gradient, cut to norm `clip` if that is above 0; not at all, giving False, if it is not finite."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, clip or math.inf)
    if not (math.isfinite(loss.item()) and math.isfinite(float(norm))):
        return False
    optimizer.step()
    return True


def cut(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut indices into batches, the last one maybe short."""
    return [order[i : i + size] for i in range(0, len(order), size)]
