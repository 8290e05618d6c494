"""Average precision of boxes with COCO's 101 recall points, by torchmetrics with faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import Ints

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

IOU_THRESHOLDS = (0.5, 0.75)
MAX_BOXES = 300
"""Boxes of one picture that count, the best first (FedSTO's protocol)."""


@dataclass(frozen=True)
class FlatBoxes:
    """Boxes of n pictures, flat: picture i has the rows `offsets[i]:offsets[i + 1]`.

    `xyxy` float32 (m, 4) is left, top, right, bottom in pixels; `label` int64 (m,) the class; `offsets` int64 (n + 1,);
    `score` float32 (m,) in 0..1, 1 for true boxes.
    """

    xyxy: Floats
    label: Ints
    offsets: Ints
    score: Floats

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def true(cls, xyxy: Floats, label: Ints, offsets: Ints) -> FlatBoxes:
        """Give true boxes."""
        return cls(xyxy, label, offsets, np.ones(len(label), np.float32))

    @classmethod
    def join(cls, parts: Sequence[FlatBoxes]) -> FlatBoxes:
        """Give the boxes of all parts' pictures, in order; no pictures for no parts."""
        if not parts:
            return cls.true(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(1, np.int64))
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate([part.xyxy for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([part.score for part in parts]),
        )

    def take(self, index: Ints) -> FlatBoxes:
        """Give the boxes of some pictures, in the order of `index`."""
        counts = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][index] - offsets[:-1], counts)
        return FlatBoxes(self.xyxy[rows], self.label[rows], offsets, self.score[rows])

    def above(self, score: float) -> FlatBoxes:
        """Give the boxes whose score is at least this."""
        kept = self.score >= score
        before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        return FlatBoxes(self.xyxy[kept], self.label[kept], before[self.offsets], self.score[kept])


def average_precision(found: FlatBoxes, true: FlatBoxes, num_classes: int) -> NDArray[np.float64]:
    """Give AP by IoU threshold and class, (2, classes), at IoU 0.5 and 0.75: interpolated at 101 recalls, as COCO's.

    NaN for a class without true boxes, 0 for one that was never found. `found` and `true` are of the same pictures.
    """
    out = np.full((len(IOU_THRESHOLDS), num_classes), np.nan)
    if not len(true.label):
        return out
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(
        iou_thresholds=list(IOU_THRESHOLDS),
        max_detection_thresholds=[1, 10, MAX_BOXES],
        extended_summary=True,
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    metric.update(_by_picture(found, scored=True), _by_picture(true, scored=False))
    result = metric.compute()
    # Axes: IoU threshold, recall, class, range of areas (the first is all), most boxes a picture.
    precision = result["precision"][:, :, :, 0, -1].double().numpy()
    means = precision.mean(axis=1)
    out[:, result["classes"].numpy().reshape(-1)] = np.where(means < 0, np.nan, means)
    return out


def mean_over(values: NDArray[np.float64]) -> float:
    """Give the mean of what is known, NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _by_picture(boxes: FlatBoxes, *, scored: bool) -> list[dict[str, torch.Tensor]]:
    import torch

    sizes = np.diff(boxes.offsets).tolist()
    names = {"boxes": boxes.xyxy, "labels": boxes.label} | ({"scores": boxes.score} if scored else {})
    cut = {name: torch.split(torch.from_numpy(np.ascontiguousarray(array)), sizes) for name, array in names.items()}
    return [{name: parts[i] for name, parts in cut.items()} for i in range(len(boxes))]
