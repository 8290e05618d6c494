"""What a client sees of the shared arrays: batches of plain, weak and strong views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data.base import SEEN, Dataset, Indices
from fedssl.data.views import box_augment, modality
from fedssl.data.views.box_augment import Transform
from fedssl.data.views.draws import Key

_TOGETHER = 512
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class DetectionBatch:
    """Views of scenes with the boxes that are known to the client, in pixels of the view.

    `x` is float32 (batch, 3, size, size) in 0..1, channels_last; `boxes` float32 (m, 4), xyxy, are of `classes`
    (m,) and in the views `image_index` (m,), ascending. `transform` says where a box of the weak view lies in this one.
    """

    x: torch.Tensor
    boxes: torch.Tensor
    classes: torch.Tensor
    image_index: torch.Tensor
    transform: Transform


@dataclass(frozen=True)
class ClientData:
    """A client's samples. Methods may read the labels of `labelled` alone; `truth` is for telemetry.

    `given` is int64 over the training split: the label that a client knows (noise included), -1 without one.
    `kinds` is int8 (classes,), see `Split.kinds`; empty when made = every class is seen.
    A view is a pure function of (sample, key), so it does not depend on the batch a sample sits in.
    """

    client_id: int
    dataset: Dataset
    indices: Indices
    given: NDArray[np.int64]
    flip: bool
    device: torch.device
    kinds: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))

    def __post_init__(self) -> None:
        if not len(self.kinds):
            object.__setattr__(self, "kinds", np.full(self.num_classes, SEEN, np.int8))

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Return the indices of samples with a label."""
        return self.indices.labelled

    @property
    def unlabelled(self) -> NDArray[np.int64]:
        """Return the indices of samples without a label."""
        return self.indices.unlabelled

    @property
    def num_examples(self) -> int:
        """Return the number of training samples."""
        return len(self.labelled) + len(self.unlabelled)

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return self.dataset.num_classes

    def labels(self, index: NDArray[np.int64]) -> torch.Tensor:
        """Return the labels that the client knows. Raises ValueError for a sample without one."""
        y = self.given[index]
        if (y < 0).any():
            raise ValueError("a label was asked of a sample that has none")
        return torch.from_numpy(y).to(self.device)

    def truth(self, index: NDArray[np.int64]) -> torch.Tensor:
        """Return the true classes, -1 where unknown; for scores and telemetry, never for training."""
        return torch.from_numpy(self.dataset.train.y[index]).to(self.device)

    def plain(self, index: NDArray[np.int64]) -> torch.Tensor:
        """Return samples as models take them: see `fedssl.data.views.modality.model_input`."""
        return self._input(torch.from_numpy(self.dataset.train.x[index]))

    def weak(self, index: NDArray[np.int64], key: Key) -> torch.Tensor:
        """Return a slightly changed view of each sample: a picture shifted and flipped, a window with noise."""
        x = torch.from_numpy(self.dataset.train.x[index])
        return self._input(modality.weak(x, index, key, flip=self.flip, spread=self._spread))

    def weak_batches(self, parts: Sequence[NDArray[np.int64]], key: int) -> Iterator[torch.Tensor]:
        """Yield `weak(part, key + i)` for the i-th part; many at once, since a call costs more than a sample."""
        for start, group, sizes in _groups(parts):
            keys = np.repeat(np.array([(key + start + i) & _MASK for i in range(len(group))], np.uint64), sizes)
            yield from torch.split(self.weak(np.concatenate(group), keys), sizes)

    def plain_batches(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        """Give `plain(part)` for each part; many at once, as in `weak_batches`."""
        for _, group, sizes in _groups(parts):
            yield from torch.split(self.plain(np.concatenate(group)), sizes)

    def label_batches(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        """Give `labels(part)` for each part; many at once, as in `weak_batches`."""
        for _, group, sizes in _groups(parts):
            yield from torch.split(self.labels(np.concatenate(group)), sizes)

    def strong(self, index: NDArray[np.int64], key: Key) -> torch.Tensor:
        """Return a strongly changed view: a picture by RandAugment and cutout, a window as in `views.motion`."""
        x = torch.from_numpy(self.dataset.train.x[index])
        return self._input(modality.strong(x, index, key, flip=self.flip, spread=self._spread))

    def detection_batch(
        self, index: NDArray[np.int64], key: Key, *, strong: bool, mosaic: bool = False
    ) -> DetectionBatch:
        """Return scenes as they are stored (the weak view), or strong views of them: see `views.box_augment`.

        Boxes are those of labelled samples alone. With `mosaic`, which only strong views have, four pictures make one.
        """
        boxes, classes, place = self._boxes(index, np.isin(index, self.labelled))
        if not strong:
            x = self.plain(index)
            return DetectionBatch(x, boxes, classes, place, box_augment.identity(len(x), x.shape[-1], x.device))
        stored = torch.from_numpy(self.dataset.train.x[index])
        x, transform = box_augment.strong(stored, index, key, flip=self.flip, mosaic=mosaic, device=self.device)
        placed, view, row = box_augment.place_boxes(boxes, place, transform)
        return DetectionBatch(x, placed, classes[row], view, transform)

    def true_boxes(self, index: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return all boxes (m, 4) of stored scenes, classes and places in `index`; for telemetry, never for training.

        Of scenes that are not `annotated` nothing is known, which is not the same as no boxes.
        """
        return self._boxes(index, self.annotated(index))

    def annotated(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each scene's true boxes are known; for telemetry, never for training."""
        known = self.dataset.train.annotated
        return known[index] if len(known) else np.ones(len(index), bool)

    def _boxes(
        self, index: NDArray[np.int64], told: NDArray[np.bool_]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        boxes, classes, place = self.dataset.train.boxes_at(index)
        kept = told[place]
        found = (torch.from_numpy(part[kept]).to(self.device) for part in (boxes, classes, place))
        return tuple(found)  # type: ignore

    def validation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the client's validation samples and their true classes."""
        index = self.indices.validation
        return self.plain(index), self.truth(index)

    def test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the client's own test samples and their true classes."""
        index = self.indices.test
        x = self._input(torch.from_numpy(self.dataset.test.x[index]))
        return x, torch.from_numpy(self.dataset.test.y[index]).to(self.device)

    @property
    def _spread(self) -> tuple[float, ...]:
        return modality.deviations(self.dataset.std, self.dataset.limit)

    def _input(self, x: torch.Tensor) -> torch.Tensor:
        return modality.model_input(x.to(self.device), self.dataset.mean, self.dataset.std, self.dataset.limit)


def _groups(parts: Sequence[NDArray[np.int64]]) -> Iterator[tuple[int, Sequence[NDArray[np.int64]], list[int]]]:
    """Yield parts of up to `_TOGETHER` samples in all: the first one's place, the parts, their sizes."""
    some = max(1, _TOGETHER // max(1, max(map(len, parts), default=0)))
    for start in range(0, len(parts), some):
        group = parts[start : start + some]
        yield start, group, [len(part) for part in group]
