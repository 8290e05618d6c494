"""Made-up motion of several people, for trying things out; it needs no file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedssl.config import option
from fedssl.data.base import Dataset, register
from fedssl.data.sources.windows import Recordings, Windowed, names_of
from fedssl.rng import Rng

RATE_HZ = 20.0
NOISE = 0.1


@register("imu_synthetic")
@dataclass
class ImuSynthetic(Windowed):
    """Synthetic: a class is a sum of 2 sinusoids a channel; a person has an own pose, strength and pace.

    Channels in threes are the axes of one sensor, turned together; other numbers of channels are not turned.
    """

    server_subjects: int = option(6, "people besides `users`, of the lowest ids: the server's", low=0)
    users: int = option(10, "people that are clients", low=1)
    classes: int = option(4, "activities", low=2, high=1000)
    channels: int = option(3, "channels", low=1, high=512)
    windows: int = option(200, "a recording's length, in windows; each person has one recording an activity", low=4)
    tilt: float = option(30.0, "degrees by which a person's sensor is turned at most", low=0, high=180)
    seed: int = option(0, "of people and activities; independent of the run's seed", low=0)

    def fingerprint(self) -> str:
        """Return what decides the signals and windows."""
        return f"imu 2 {(self.users, self.classes, self.channels, self.windows, self.tilt, self.seed)} {self.choices()}"

    def read(self) -> Dataset:
        """Make the recordings and cut them."""
        people, length = self.users + self.server_subjects, self.windows * self.window
        signal = np.concatenate([self._person(one, length) for one in range(people)])
        starts = np.arange(people * self.classes) * length
        recordings = Recordings(
            where="imu_synthetic",
            signal=signal,
            scale=np.ones(self.channels, np.float32),
            bounds=np.stack([starts, starts + length], axis=1),
            subject=np.repeat(np.arange(people), self.classes),
            activity=np.tile(np.arange(self.classes), people),
            activities=names_of(range(self.classes)),
            rate_hz=RATE_HZ,
        )
        return self.cut(recordings)

    def _person(self, person: int, length: int) -> NDArray[np.float32]:
        """Return one person's recordings of all classes in order, (classes * length, channels)."""
        generator = Rng(self.seed).at(client=person).numpy("imu person")
        turn = rotation(generator, self.tilt)
        gain, pace = generator.uniform(0.7, 1.3), generator.uniform(0.9, 1.1)
        parts = []
        for activity in range(self.classes):
            seconds = pace * (np.arange(length) / RATE_HZ + generator.uniform(0, 10))
            parts.append(gain * self._motion(activity, seconds))
        signal = np.concatenate(parts)
        if self.channels % 3 == 0:
            signal = (signal.reshape(len(signal), -1, 3) @ turn.T).reshape(signal.shape)
        return (signal + NOISE * generator.standard_normal(signal.shape)).astype(np.float32)

    def _motion(self, activity: int, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return an activity's two sinusoids a channel at these times, (len(seconds), channels)."""
        generator = Rng(self.seed).numpy("imu activity", activity)
        shape = (2, self.channels)
        strength, hertz = generator.uniform(0.3, 1, shape), generator.uniform(0.3, 4, shape)
        angle = 2 * np.pi * hertz * seconds[:, None, None] + generator.uniform(0, 2 * np.pi, shape)
        moved: NDArray[np.float64] = (strength * np.sin(angle)).sum(axis=1)
        return moved


def rotation(generator: np.random.Generator, most: float) -> NDArray[np.float64]:
    """Return a rotation matrix (3, 3): around a random axis, by an angle up to `most` degrees."""
    from scipy.spatial.transform import Rotation

    axis = generator.standard_normal(3)
    angle = np.deg2rad(generator.uniform(0, most))
    turn: NDArray[np.float64] = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    return turn
