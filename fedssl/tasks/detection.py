"""Boxes of objects in pictures, scored by average precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data.base import Dataset, Samples
from fedssl.metrics.detection import MAX_BOXES, FlatBoxes, average_precision, mean_over
from fedssl.models.detection.select import select_boxes
from fedssl.tasks.base import Ints, Kinds, Task, evaluating, register

MIN_SCORE = 0.001
MAX_OVERLAP = 0.65


@dataclass(frozen=True)
class SceneTruth:
    """What is true of some pictures: their boxes, of each the domain (weather) or -1, and who has annotations."""

    boxes: FlatBoxes
    domain: Ints
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    annotated: Ints
    """Places of the pictures whose boxes are known."""


@register("detection")
@dataclass
class Detection(Task):
    """Mean average precision over the classes that have true boxes, at 101 recalls as COCO's.

    Answers are `FlatBoxes`: score (objectness times class probability) at least 0.001, class-wise
    non-maximum suppression at IoU 0.65, at most 300 a picture. Truth is `SceneTruth`.
    """

    main_metric = "map50"
    has_logits: ClassVar[bool] = False

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

    def score(self, answers: FlatBoxes, truth: SceneTruth, kinds: Kinds) -> dict[str, float]:
        """Give map50 and map75 of all pictures, map50_<domain>, their mean map50_total, and ap50_<class>.

        NaN where there is no true box; FedSTO's totals are means over the weathers, each counting the same. Pictures
        without annotations are left out.
        """
        del kinds
        classes = len(truth.class_names)
        known = truth.annotated
        at50, at75 = average_precision(answers.take(known), truth.boxes.take(known), classes)
        scores = {"map50": mean_over(at50), "map75": mean_over(at75)}
        by_domain = []
        for domain, name in enumerate(truth.domain_names):
            index = known[truth.domain[known] == domain]
            value = mean_over(average_precision(answers.take(index), truth.boxes.take(index), classes)[0])
            by_domain.append(value)
            scores[f"map50_{name}"] = value
        if by_domain:
            scores["map50_total"] = mean_over(np.array(by_domain))
        return scores | {f"ap50_{name}": float(value) for name, value in zip(truth.class_names, at50, strict=True)}

    def by_client(
        self, answers: FlatBoxes, truth: SceneTruth, index: Ints, offsets: Ints, kinds: Kinds
    ) -> dict[str, NDArray[np.float64]]:
        """Give each client's map50 and map75 (clients,); clients that share their pictures are scored once."""
        del kinds
        known: dict[bytes, tuple[float, float]] = {}
        out = np.full((2, len(offsets) - 1), np.nan)
        for client in range(len(offsets) - 1):
            rows = index[offsets[client] : offsets[client + 1]]
            if (key := rows.tobytes()) not in known:
                precision = average_precision(answers.take(rows), truth.boxes.take(rows), len(truth.class_names))
                known[key] = (mean_over(precision[0]), mean_over(precision[1]))
            out[:, client] = known[key]
        return {"map50": out[0], "map75": out[1]}


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
