"""The interface of a data source, and the decoded data set that all workers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.registry import Registry

SEEN, LOCALLY_UNSEEN, GLOBALLY_UNSEEN, ABSENT = 0, 1, 2, -1
"""Kinds of a class: labelled somewhere; else held by every client, by some clients, by none."""


@dataclass(frozen=True)
class Samples:
    """One split of a data set, kept as it was read.

    `x` is uint8 pictures (n, height, width, channels), or float32 sensor windows (n, steps, channels) in physical
    units, C-contiguous; `y` is int64 (n,), the class index or -1 where nobody knows it; `group` is int64 (n,), the
    natural group (subject, domain) or -1.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """A decoded data set: training and test samples with what a model must know about them.

    `mean` and `std` are per channel: of pixels in 0..1, or in a window's units. Models see (x - mean) / std, clipped at
    +-`limit` if that is above 0; `std` is then 3 / `limit` standard deviations. `key` names it in the cache.
    `server_groups`: groups whose training samples are the server's, labelled; the test split has none of them.
    `group_names`: a text for each group, sorted by its number. `rate_hz`: rows of a window a second, 0 if unknown.
    """

    name: str
    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    key: str
    limit: float = 0.0
    server_groups: tuple[int, ...] = ()
    group_names: tuple[str, ...] = ()
    rate_hz: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Give (height, width, channels) of a picture, (steps, channels) of a window."""
        return tuple(int(side) for side in self.train.x.shape[1:])

    @property
    def num_classes(self) -> int:
        """Give the number of classes."""
        return len(self.class_names)


@dataclass
class DataSource(ABC):
    """Where samples come from; its fields are the options of `data=name`."""

    name: ClassVar[str] = ""
    task: ClassVar[str] = "classification"
    flip: ClassVar[bool] = True

    @abstractmethod
    def fingerprint(self) -> str:
        """Give a text that changes when the samples would; cheap, since it is asked at every start.

        Raises ConfigError when the files are missing or cannot be used.
        """

    @abstractmethod
    def read(self) -> Dataset:
        """Decode and check everything. Raises ConfigError, one line that names file and array."""


SOURCES: Registry[DataSource] = Registry("data", "fedssl.data")
register = SOURCES.register


@dataclass(frozen=True)
class Indices:
    """A client's samples as indices into the shared arrays.

    `labelled` and `unlabelled` index the training split and are disjoint; `validation` too, but holds samples that
    nobody trains on; `test` indexes the test split. All int64, sorted.
    """

    labelled: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    validation: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    test: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
