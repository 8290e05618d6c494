"""Smartwatch recordings of the WISDM data set (Weiss, Yoneda, Hayajneh 2019), from files that the user has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from fedssl.config import ConfigError, option
from fedssl.data.base import Dataset, register
from fedssl.data.sources.npz import file_sha256
from fedssl.data.sources.recordings import read_recordings
from fedssl.data.sources.windows import Recordings, Windowed

SIX = ("walking", "jogging", "stairs", "sitting", "standing", "kicking_ball")
ALL = (
    *("walking", "jogging", "stairs", "sitting", "standing", "typing", "brushing_teeth", "eating_soup"),
    *("eating_chips", "eating_pasta", "drinking", "eating_sandwich", "kicking_ball", "playing_catch"),
    *("dribbling", "writing", "clapping", "folding_clothes"),
)


@dataclass
class Wisdm(Windowed):
    """A file in the layout of `recordings`, with the set's own activities and sensors."""

    file: ClassVar[str] = ""
    names: ClassVar[tuple[str, ...]] = ()
    channels: ClassVar[int] = 0

    path: str = option("", "the file, or the folder it lies in", path=True)
    server_subjects: int = option(9, "people, of the lowest ids, whose training windows are the server's", low=0)

    def fingerprint(self) -> str:
        """Return the hash of the file and what else decides the windows."""
        return f"{file_sha256(self._place())} {self.choices()}"

    def read(self) -> Dataset:
        """Check the file and cut it."""
        place = self._place()
        found = read_recordings(place)
        if found.activities != self.names or found.signal.shape[1] != self.channels:
            allowed = f"a file of {self.channels} channels and the activities {', '.join(self.names)}"
            raise ConfigError("data.path", place, allowed)
        return self.cut(self.chosen(found))

    def chosen(self, recordings: Recordings) -> Recordings:
        """Return the recordings that count."""
        return recordings

    def _place(self) -> str:
        if not self.path:
            raise ConfigError("data.path", self.path, f"the file {self.file}, or its folder")
        place = Path(self.path).expanduser()
        return str(place / self.file) if place.is_dir() else self.path


@register("wisdm_small")
@dataclass
class WisdmSmall(Wisdm):
    """51 people, 6 activities of 2 minutes each; accelerometer of the watch, 3 channels, 20 Hz."""

    file: ClassVar[str] = "wisdm_small.npz"
    names: ClassVar[tuple[str, ...]] = SIX
    channels: ClassVar[int] = 3


@register("wisdm_watch")
@dataclass
class WisdmWatch(Wisdm):
    """46 people, 18 activities of 3 minutes each; accelerometer and gyroscope of the watch, 6 channels, 20 Hz."""

    file: ClassVar[str] = "wisdm_watch.npz"
    names: ClassVar[tuple[str, ...]] = ALL
    channels: ClassVar[int] = 6

    activities: str = option("all", "`all` 18, or the `six` of wisdm_small", choices=("all", "six"))

    def choices(self) -> str:
        """Return the options as text."""
        return f"{super().choices()} {self.activities}"

    def chosen(self, recordings: Recordings) -> Recordings:
        """Return the recordings of the chosen activities, numbered anew."""
        if self.activities == "all":
            return recordings
        number = np.array([SIX.index(name) if name in SIX else -1 for name in recordings.activities])
        activity = number[recordings.activity]
        kept = activity >= 0
        return replace(
            recordings,
            bounds=recordings.bounds[kept],
            subject=recordings.subject[kept],
            activity=activity[kept],
            activities=SIX,
        )
