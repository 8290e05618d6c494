"""Shoulder exercises worn by a smartwatch (Burns et al. 2018, arXiv 1802.01489), from the package seglearn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedssl.config import ConfigError, option
from fedssl.data.base import Dataset, register
from fedssl.data.sources.windows import Recordings, Windowed

RATE_HZ = 50.0


@register("seglearn")
@dataclass
class Shoulder(Windowed):
    """10 people, 7 exercises with each arm; accelerometer and gyroscope of the watch, 6 channels, 50 Hz.

    The package holds the recordings as a pickle of its own; nothing is fetched. Install with `fedssl[sensors]`.
    """

    window: int = option(100, "rows of a window", low=8, high=4096)
    stride: int = option(100, "rows from one window's start to the next's", low=1)
    server_subjects: int = option(3, "people, of the lowest ids, whose training windows are the server's", low=0)

    def fingerprint(self) -> str:
        """Return the package's version and what else decides the windows."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"seglearn {version('seglearn')} {self.choices()}"
        except PackageNotFoundError:
            raise ConfigError("data", self.name, "installed: pip install 'fedssl[sensors]'") from None

    def read(self) -> Dataset:
        """Cut the package's recordings."""
        self.fingerprint()
        from seglearn.datasets import load_watch

        return self.cut(recordings_of(load_watch()))


def recordings_of(found: dict[str, Any]) -> Recordings:
    """Return the recordings of `seglearn.datasets.load_watch`."""
    ends = np.cumsum([len(rows) for rows in found["X"]])
    signal = np.concatenate(found["X"]).astype(np.float32)
    return Recordings(
        where="seglearn",
        signal=signal,
        scale=np.ones(signal.shape[1], np.float32),
        bounds=np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1),
        subject=np.asarray(found["subject"], np.int64),
        activity=np.asarray(found["y"], np.int64),
        activities=tuple(str(name) for name in found["y_labels"]),
        rate_hz=RATE_HZ,
    )
