"""FlatBoxes of objects in pictures, scored by average precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fedssl.data.base import Dataset, Samples
from fedssl.metrics.detection import MAX_BOXES, FlatBoxes, SceneTruth
from fedssl.models.detection.select import select_boxes
from fedssl.tasks.base import Ints, Kinds, Task, evaluating, register

MIN_SCORE = 0.001
MAX_OVERLAP = 0.65


@register("detection")
@dataclass
class Detection(Task):
    """Mean average precision over the classes that have true boxes, at 101 recalls as COCO's.

    Answers are `FlatBoxes`: score (objectness times class probability) at least 0.001, class-wise
    non-maximum suppression at IoU 0.65, at most 300 a picture. Truth is `SceneTruth`.
    """

    main_metric = "map50"
    has_logits: ClassVar[bool] = False
    finds_boxes: ClassVar[bool] = True
    headline: ClassVar[Mapping[str, str]] = {
        "map50_total": "mAP50",
        "map50": "mAP50 of all",
        "personal_map50": "personal mAP50",
    }

    def predict(self, model: torch.nn.Module, x_batches: Iterable[torch.Tensor]) -> FlatBoxes:
        """Give the boxes that the model finds."""
        with evaluating(model), torch.no_grad():
            return FlatBoxes.join([found(model, x) for x in x_batches])

    def truth(self, dataset: Dataset, samples: Samples, index: Ints) -> SceneTruth:
        """Give the true boxes of some samples and where they belong."""
        boxes = FlatBoxes.true(samples.boxes, samples.box_class, samples.box_offsets).take(index)
        domain = samples.domain[index] if len(samples.domain) else np.full(len(index), -1)
        known = samples.annotated[index] if len(samples.annotated) else np.ones(len(index), bool)
        return SceneTruth(boxes, domain, dataset.class_names, dataset.domain_names, np.flatnonzero(known))

    def answers(self, answers: FlatBoxes, truth: SceneTruth, kinds: Kinds) -> dict[str, Sequence[Any]]:
        """Return the boxes found and the true ones."""
        del kinds
        return {"boxes": (answers, truth)}

    def client_answers(
        self, answers: FlatBoxes, truth: SceneTruth, index: Ints, offsets: Ints
    ) -> dict[str, Sequence[Any]]:
        """Return them with who holds which pictures."""
        return {"boxes": (answers, truth, index, offsets)}


def found(model: torch.nn.Module, x: torch.Tensor, min_score: float = MIN_SCORE) -> FlatBoxes:
    """Give the boxes that a detector finds in pictures (batch, 3, side, side) of 0..1, in its present mode."""
    decoded = model.decode(model(x))  # type: ignore[operator]
    kept = select_boxes(*decoded, min_score=min_score, overlap=MAX_OVERLAP, most=MAX_BOXES)
    counts = np.bincount(kept.image.cpu().numpy(), minlength=len(x))
    return FlatBoxes(
        kept.boxes.float().cpu().numpy(),
        kept.classes.cpu().numpy(),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        kept.score.float().cpu().numpy(),
    )
