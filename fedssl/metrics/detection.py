"""Average precision of boxes with COCO's 101 recall points, by torchmetrics with faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import Ints
from fedssl.metrics.base import Metric, register

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

IOU_THRESHOLDS = (0.5, 0.75)
MAX_BOXES = 300
"""FlatBoxes of one picture that count, the best first (FedSTO's protocol)."""


@dataclass(frozen=True)
class FlatBoxes:
    """FlatBoxes of n pictures, flat: picture i has the rows `offsets[i]:offsets[i + 1]`.

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


@dataclass(frozen=True)
class SceneTruth:
    """What is true of some pictures: their boxes, of each the domain (weather) or -1, and who has annotations."""

    boxes: FlatBoxes
    domain: Ints
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    annotated: Ints
    """Places of the pictures whose boxes are known."""


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


def maps_by_client(found: FlatBoxes, scenes: SceneTruth, index: Ints, offsets: Ints) -> dict[str, NDArray[np.float64]]:
    """Return each client's map50 and map75 (clients,); clients that share their pictures are scored once.

    Client c holds the pictures `index[offsets[c]:offsets[c + 1]]`.
    """
    known: dict[bytes, tuple[float, float]] = {}
    out = np.full((2, len(offsets) - 1), np.nan)
    for client in range(len(offsets) - 1):
        rows = index[offsets[client] : offsets[client + 1]]
        if (key := rows.tobytes()) not in known:
            precision = average_precision(found.take(rows), scenes.boxes.take(rows), len(scenes.class_names))
            known[key] = (mean_over(precision[0]), mean_over(precision[1]))
        out[:, client] = known[key]
    return {"map50": out[0], "map75": out[1]}


@register(
    Metric("map50", "mAP at IoU 0.50", "share", "higher", 140, member="mAP at IoU 0.50, {member}", sums_up=True),
    Metric("map50_total", "mAP at IoU 0.50, mean over weathers", "share", "higher", 150),
    Metric("map75", "mAP at IoU 0.75", "share", "higher", 160),
    Metric("ap50", "AP at IoU 0.50", "share", "higher", member="AP at IoU 0.50, {member}"),
    of="boxes",
    by_client=maps_by_client,
)
def maps(found: FlatBoxes, scenes: SceneTruth) -> dict[str, float]:
    """Return map50 and map75 of all pictures, map50_<domain>, their mean map50_total, and ap50_<class>.

    NaN where there is no true box; FedSTO's totals are means over the weathers, each counting the same. Pictures
    without annotations are left out.
    """
    classes = len(scenes.class_names)
    known = scenes.annotated
    at50, at75 = average_precision(found.take(known), scenes.boxes.take(known), classes)
    scores = {"map50": mean_over(at50), "map75": mean_over(at75)}
    by_domain = []
    for domain, name in enumerate(scenes.domain_names):
        index = known[scenes.domain[known] == domain]
        value = mean_over(average_precision(found.take(index), scenes.boxes.take(index), classes)[0])
        by_domain.append(value)
        scores[f"map50_{name}"] = value
    if by_domain:
        scores["map50_total"] = mean_over(np.array(by_domain))
    return scores | {f"ap50_{name}": float(value) for name, value in zip(scenes.class_names, at50, strict=True)}


def _by_picture(boxes: FlatBoxes, *, scored: bool) -> list[dict[str, torch.Tensor]]:
    import torch

    sizes = np.diff(boxes.offsets).tolist()
    names = {"boxes": boxes.xyxy, "labels": boxes.label} | ({"scores": boxes.score} if scored else {})
    cut = {name: torch.split(torch.from_numpy(np.ascontiguousarray(array)), sizes) for name, array in names.items()}
    return [{name: parts[i] for name, parts in cut.items()} for i in range(len(boxes))]
