"""Windows cut from recordings of sensors, split in time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.arrays import dataset_key
from fedssl.data.base import Dataset, DataSource, Samples
from fedssl.data.base import Ints as Ints
from fedssl.data.views.modality import BOUND

Floats = NDArray[np.float32]
_VERSION = 2


@dataclass(frozen=True)
class Recordings:
    """Checked recordings, each of one person doing one thing.

    `signal` (rows, channels) times `scale` (channels,) is in physical units; `bounds` (n, 2) are each recording's first
    row and the row after its last; `subject` (n,) is 0 or more; `activity` (n,) is -1 where nobody knows it.
    `where` is named in errors.
    """

    where: str
    signal: NDArray[Any]
    scale: Floats
    bounds: Ints
    subject: Ints
    activity: Ints
    activities: tuple[str, ...]
    rate_hz: float


@dataclass
class Windowed(DataSource):
    """Base of the sources of sensor windows; each recording begins as training rows and ends as test rows."""

    task: ClassVar[str] = "sensing"
    flip: ClassVar[bool] = False

    window: int = option(30, "rows of a window", low=8, high=4096)
    stride: int = option(30, "rows from one window's start to the next's", low=1)
    server_subjects: int = option(0, "people, of the lowest ids, whose training windows are the server's", low=0)
    scaling: str = option(
        "bounded",
        "model input: `bounded` is 3 standard deviations = 1, clipped at +-1; `zscore` is 1 = 1, not clipped",
        choices=("bounded", "zscore"),
    )
    train_share: float = option(0.6, "share of each recording, from its start, that is trained on", above=0, below=1)
    gap: float = option(0.1, "share after that which is left out; the rest is the test part", low=0, below=1)

    def choices(self) -> str:
        """Return the options of windows as text, for fingerprints."""
        values = (self.window, self.stride, self.server_subjects, self.scaling, self.train_share, self.gap)
        return f"windows {_VERSION} {values}"

    def cut(self, recordings: Recordings) -> Dataset:
        """Return the windows of all recordings; a group is a person.

        Test windows of the server's people, or of unknown activity, are left out.
        Raises ConfigError on the option or `data.path` that leaves too little.
        """
        if self.train_share + self.gap >= 1:
            raise ConfigError("data.gap", self.gap, f"below {1 - self.train_share:g}, what data.train_share leaves")
        people = np.unique(recordings.subject)
        if self.server_subjects >= len(people):
            allowed = f"at most {len(people) - 1}: there are recordings of {len(people)} people"
            raise ConfigError("data.server_subjects", self.server_subjects, allowed)
        server = people[: self.server_subjects]
        train, test = self._samples(recordings)
        kept = (test.y >= 0) & ~np.isin(test.group, server)
        test = Samples(test.x[kept], test.y[kept], test.group[kept])
        self._check(recordings, train, test)
        reserved = np.isin(train.group, server)
        mean, std = moments(train.x[reserved] if reserved.any() else train.x)
        bounded = self.scaling == "bounded"
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            class_names=recordings.activities,
            mean=mean,
            std=tuple(BOUND * value for value in std) if bounded else std,
            key=dataset_key(self),
            limit=1.0 if bounded else 0.0,
            server_groups=tuple(int(one) for one in server),
            group_names=names_of(np.unique(train.group)),
            rate_hz=recordings.rate_hz,
        )

    def _samples(self, recordings: Recordings) -> tuple[Samples, Samples]:
        train, test = [], []
        for start, stop in recordings.bounds:
            rows = recordings.signal[start:stop]
            end, begin = time_split(len(rows), self.train_share, self.gap)
            train.append(windows(rows[:end], self.window, self.stride))
            test.append(windows(rows[begin:], self.window, self.stride))
        return _joined(recordings, train), _joined(recordings, test)

    def _check(self, recordings: Recordings, train: Samples, test: Samples) -> None:
        longest = int(np.diff(recordings.bounds, axis=1).max())
        for part, samples in (("training", train), ("test", test)):
            if not len(samples):
                allowed = f"shorter: the longest recording, {longest} rows, gives no {part} window of known activity"
                raise ConfigError("data.window", self.window, allowed)
        if len(np.unique(train.y[train.y >= 0])) < 2:
            raise ConfigError("data.path", recordings.where, "recordings of at least 2 activities")


def time_split(length: int, train_share: float, gap: float) -> tuple[int, int]:
    """Return the row after the training part and the first row of the test part of a recording.

    Both parts are rounded down, so the rows between them are at least `gap` of the recording.
    """
    # A share times a length may come out just below the whole number that it is.
    train = math.floor(length * train_share + 1e-6)
    test = math.floor(length * (1 - train_share - gap) + 1e-6)
    return train, length - test


def windows(rows: NDArray[Any], window: int, stride: int) -> NDArray[Any]:
    """Return all windows that fit, (n, window, channels) of rows (length, channels), as a view."""
    if len(rows) < window:
        return np.empty((0, window, rows.shape[1]), rows.dtype)
    every = np.lib.stride_tricks.sliding_window_view(rows, window, axis=0)
    return every[::stride].transpose(0, 2, 1)


def moments(x: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of windows; 1 for a channel that never moves.

    That is one that moves less than float32 can tell at the channel's own magnitude, whatever its unit.
    """
    rows = x.reshape(-1, x.shape[2])
    means, stds = [], []
    for channel in rows.T:
        value = channel.astype(np.float64)
        means.append(float(value.mean()))
        std = float(value.std())
        stds.append(std if std > np.finfo(np.float32).eps * np.abs(value).max() else 1.0)
    return tuple(means), tuple(stds)


def _joined(recordings: Recordings, parts: list[NDArray[Any]]) -> Samples:
    counts = [len(part) for part in parts]
    x = np.ascontiguousarray(np.concatenate(parts), np.float32) * recordings.scale
    y, group = (np.repeat(one, counts) for one in (recordings.activity, recordings.subject))
    return Samples(x, y, group)


def names_of(numbers: Iterable[int]) -> tuple[str, ...]:
    """Return numbers as texts, where nothing is named."""
    return tuple(str(number) for number in numbers)
