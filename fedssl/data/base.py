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


def _floats() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


def _integers() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Samples:
    """One split of a data set, kept as it was read.

    `x` is uint8 pictures (n, height, width, channels), or float32 sensor windows (n, steps, channels) in physical
    units, C-contiguous; `y` is int64 (n,), the class index or -1 where nobody knows it; `group` is int64 (n,), the
    natural group (subject, domain) or -1.

    Pictures of scenes have boxes too: those of picture i are the rows `box_offsets[i]:box_offsets[i + 1]` of `boxes`
    (m, 4), x1 y1 x2 y2 in pixels of `x`, and `box_class` (m,); `y` is then a class in the picture, -1 without boxes.
    `domain` (n,) is the index of the weather or -1, `annotated` (n,) whether somebody said which boxes there are, empty
    if always. All five are empty elsewhere.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    group: NDArray[np.int64]
    boxes: NDArray[np.float32] = field(default_factory=_floats)
    box_class: NDArray[np.int64] = field(default_factory=_integers)
    box_offsets: NDArray[np.int64] = field(default_factory=_integers)
    domain: NDArray[np.int64] = field(default_factory=_integers)
    annotated: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.y)

    @property
    def holds_boxes(self) -> bool:
        """Say whether these are scenes, whose pictures have boxes (maybe none)."""
        return len(self.box_offsets) > 0

    @property
    def background(self) -> NDArray[np.bool_]:
        """Say of each sample (n,) whether it is an annotated picture without boxes."""
        empty = (self.y < 0) & self.holds_boxes
        return empty & self.annotated if len(self.annotated) else empty

    def boxes_of(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Give the boxes (k, 4) and classes (k,) of picture i."""
        rows = slice(self.box_offsets[i], self.box_offsets[i + 1])
        return self.boxes[rows], self.box_class[rows]

    def boxes_at(self, index: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Give boxes (m, 4), classes (m,) and places in `index` (m,), ascending, of many pictures."""
        starts = self.box_offsets[index]
        counts = self.box_offsets[index + 1] - starts
        place = np.repeat(np.arange(len(index)), counts)
        rows = np.arange(len(place)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        return self.boxes[rows], self.box_class[rows], place


@dataclass(frozen=True)
class Dataset:
    """A decoded data set: training and test samples with what a model must know about them.

    `mean` and `std` are per channel: of pixels in 0..1, or in a window's units. Models see (x - mean) / std, clipped at
    +-`limit` if that is above 0; `std` is then 3 / `limit` standard deviations. `key` names it in the cache.
    `server_groups`: groups whose training samples are the server's, labelled; the test split has none of them.
    `group_names`: a text for each group, sorted by its number. `rate_hz`: rows of a window a second, 0 if unknown.
    `warnings`: what was left out or taken otherwise than written, a line each, for the user.
    `domain_names`: a text for each domain. Scenes have mean 0 and std 1, so that models see pixels in 0..1.
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
    domain_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

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
    dealt: ClassVar[bool] = False
    """Whether the user has said who holds which sample."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Give a text that changes when the samples would; cheap, since it is asked at every start.

        Raises ConfigError when the files are missing or cannot be used.
        """

    def client_groups(self) -> NDArray[np.int64] | None:
        """Give the natural groups of clients' training samples; None where they are not known before `read`."""
        return None

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
    validation: NDArray[np.int64] = field(default_factory=_integers)
    test: NDArray[np.int64] = field(default_factory=_integers)
