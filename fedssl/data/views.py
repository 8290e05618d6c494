"""What a client sees of the shared arrays: batches of plain, weak and strong views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data import modality
from fedssl.data.base import SEEN, Dataset, Indices
from fedssl.data.draws import Key

_TOGETHER = 512
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class ClientData:
    """A client's samples. Methods may read the labels of `labelled` alone; `truth` is for telemetry.

    `given` is int64 over the training split: the label a client was told (noise included), -1 where it was told none.
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
        """Give the indices of samples with a label."""
        return self.indices.labelled

    @property
    def unlabelled(self) -> NDArray[np.int64]:
        """Give the indices of samples without a label."""
        return self.indices.unlabelled

    @property
    def num_examples(self) -> int:
        """Give the number of training samples."""
        return len(self.labelled) + len(self.unlabelled)

    @property
    def num_classes(self) -> int:
        """Give the number of classes."""
        return self.dataset.num_classes

    def labels(self, index: NDArray[np.int64]) -> torch.Tensor:
        """Give the labels the client was told. Raises ValueError for a sample without one."""
        y = self.given[index]
        if (y < 0).any():
            raise ValueError("a label was asked of a sample that has none")
        return torch.from_numpy(y).to(self.device)

    def truth(self, index: NDArray[np.int64]) -> torch.Tensor:
        """Give the true classes, -1 where unknown; for scores and telemetry, never for training."""
        return torch.from_numpy(self.dataset.train.y[index]).to(self.device)

    def plain(self, index: NDArray[np.int64]) -> torch.Tensor:
        """Give samples as models take them: see `fedssl.data.modality.model_input`."""
        return self._input(torch.from_numpy(self.dataset.train.x[index]))

    def weak(self, index: NDArray[np.int64], key: Key) -> torch.Tensor:
        """Give a slightly changed view of each sample: a picture shifted and flipped, a window with noise."""
        x = torch.from_numpy(self.dataset.train.x[index])
        return self._input(modality.weak(x, index, key, flip=self.flip, spread=self._spread))

    def weak_batches(self, parts: Sequence[NDArray[np.int64]], key: int) -> Iterator[torch.Tensor]:
        """Give `weak(part, key + i)` for the i-th part; many at once, since a call costs more than a sample."""
        some = max(1, _TOGETHER // max(1, max(map(len, parts), default=0)))
        for start in range(0, len(parts), some):
            group = parts[start : start + some]
            sizes = [len(part) for part in group]
            keys = np.repeat(np.array([(key + start + i) & _MASK for i in range(len(group))], np.uint64), sizes)
            yield from torch.split(self.weak(np.concatenate(group), keys), sizes)

    def strong(self, index: NDArray[np.int64], key: Key) -> torch.Tensor:
        """Give a strongly changed view: a picture by RandAugment and cutout, a window as in `fedssl.data.motion`."""
        x = torch.from_numpy(self.dataset.train.x[index])
        return self._input(modality.strong(x, index, key, flip=self.flip, spread=self._spread))

    def validation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the client's validation samples and their true classes."""
        index = self.indices.validation
        return self.plain(index), self.truth(index)

    def test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the client's own test samples and their true classes."""
        index = self.indices.test
        x = self._input(torch.from_numpy(self.dataset.test.x[index]))
        return x, torch.from_numpy(self.dataset.test.y[index]).to(self.device)

    @property
    def _spread(self) -> tuple[float, ...]:
        return modality.deviations(self.dataset.std, self.dataset.limit)

    def _input(self, x: torch.Tensor) -> torch.Tensor:
        return modality.model_input(x.to(self.device), self.dataset.mean, self.dataset.std, self.dataset.limit)
