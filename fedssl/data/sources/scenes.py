"""Scenes dealt to a server and clients in different weather: what `roadsign` and `shapes_synthetic` share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedssl.config import option
from fedssl.data.arrays import dataset_key
from fedssl.data.base import Dataset, DataSource, Samples
from fedssl.data.boxes import Boxes, Ints, Letterbox, Picture, pack, rarest_class, room_for
from fedssl.data.sources.weather import WEATHERS, render
from fedssl.progress import report_progress
from fedssl.rng import Rng

_VERSION = 1
Load = Callable[[int], Picture]


@dataclass
class Scenes(DataSource):
    """Base of the sources whose own pictures are cut by scene and rendered in four weathers.

    Group 0 is the server's, groups 1, 2, ... are the clients': use `partition=natural` and as many `clients`. The test
    split holds the same pictures in every weather.
    """

    task: ClassVar[str] = "detection"
    classes: ClassVar[tuple[str, ...]] = ()

    size: int = option(224, "side of the square that pictures are fitted into, in pixels", low=32, multiple=32)
    weather: str = option(
        "noniid",
        "`noniid`: the server's pictures are cloudy, the clients' overcast, rainy, snowy; `iid`: all have all four",
        choices=("noniid", "iid"),
    )
    per_weather: int = option(1, "clients of each of the three weathers: 1 is 3 clients, 4 is 12", low=1)
    server_share: float = option(0.3, "share of the training pictures that is the server's, labelled", above=0, below=1)
    severity: float = option(3.0, "strength of the weather, 0 (none) to 5", low=0, high=5)
    evaluate_on: str = option(
        "test", "pictures of the test split: `test`, or `val` for every choice", choices=("test", "val")
    )
    seed: int = option(0, "of the cut and the weather; independent of the run's seed", low=0)

    @property
    def clients(self) -> int:
        """Return the number of clients that images are partitioned for."""
        return 3 * self.per_weather

    def choices(self) -> str:
        """Return the options of scenes as text, for fingerprints."""
        cut = (self.weather, self.per_weather, self.server_share, self.severity, self.evaluate_on, self.seed)
        return f"scenes {_VERSION} {(self.size, *cut)}"

    @abstractmethod
    def shapes(self) -> Ints:
        """Return height and width of every picture (n, 2)."""

    def assembled(self, load: Load, boxes: Sequence[Boxes], scene: Ints, train: Ints, test: Ints) -> Dataset:
        """Return the data set of pictures `load(i)`, uint8 (height, width, 3), with boxes[i] of scene[i].

        `train` and `test` are the numbers of those that are trained on and scored. The server's part is cut off first;
        every part gets whole scenes and its share of each class.
        """
        y = rarest_class([boxes[i] for i in train], len(self.classes))
        party = self._parties(y, scene[train])
        weather = self._weathers(party)
        train_part = self._rendered(load, boxes, train, weather, party)
        every = np.repeat(np.arange(len(WEATHERS)), len(test))
        shown = np.tile(test, len(WEATHERS))
        return Dataset(
            name=self.name,
            train=train_part,
            test=self._rendered(load, boxes, shown, every, np.full(len(shown), -1)),
            class_names=self.classes,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            key=dataset_key(self),
            server_groups=(0,),
            group_names=("server", *(self._client_name(k) for k in range(self.clients))),
            domain_names=WEATHERS,
        )

    def _parties(self, y: Ints, scene: Ints) -> Ints:
        shares = np.full(1 + self.clients, (1 - self.server_share) / self.clients)
        shares[0] = self.server_share
        return cut_scenes(y, scene, shares, Rng(self.seed).numpy("parties"))

    def _weathers(self, party: Ints) -> Ints:
        """Return each training picture's weather: its party's, or equal numbers of all four in every party."""
        if self.weather == "noniid":
            return np.where(party == 0, 0, 1 + (party - 1) % 3)
        out = np.zeros(len(party), np.int64)
        for one in range(1 + self.clients):
            mine = np.flatnonzero(party == one)
            order = Rng(self.seed).at(client=one).numpy("weather of pictures").permutation(len(mine))
            out[mine] = (order + one) % len(WEATHERS)
        return out

    def _client_name(self, client: int) -> str:
        if self.weather == "iid":
            return f"client {client}"
        kind = WEATHERS[1 + client % 3]
        return kind if self.per_weather == 1 else f"{kind} {client // 3}"

    def _rendered(self, load: Load, boxes: Sequence[Boxes], which: Ints, weather: Ints, group: Ints) -> Samples:
        """Return letterboxed pictures; weather is drawn before the grey bars are added."""
        shapes = self.shapes()
        x = room_for(len(which), self.size)
        fitted = []
        pictures = np.unique(which)
        stage = f"drawing {'test' if group[0] < 0 else 'training'} pictures in their weather"
        # By picture, so that each is decoded once however many weathers it is shown in.
        for done, i in enumerate(pictures):
            report_progress(stage, done, len(pictures))
            frame = Letterbox(int(shapes[i, 0]), int(shapes[i, 1]), self.size)
            picture = frame.resized(load(int(i)))
            for row in np.flatnonzero(which == i):
                x[row] = frame.framed(render(picture, int(weather[row]), self.severity, seed=self.seed, image=int(i)))
        report_progress(stage, len(pictures), len(pictures))
        for i in which:
            frame = Letterbox(int(shapes[i, 0]), int(shapes[i, 1]), self.size)
            fitted.append(Boxes(frame.boxes(boxes[i].xyxy), boxes[i].classes))
        return pack(x, fitted, rarest_class(fitted, len(self.classes)), group, weather)


def cut_scenes(y: Ints, scene: Ints, shares: np.ndarray, generator: np.random.Generator) -> Ints:
    """Return each picture's part (n,), so that a scene is in one part and part k has about shares[k] of each class.

    `y` is each picture's class or -1, `scene` its scene. Scenes go, the largest and the rarest classes first, to the
    part that lacks their classes most, of those with room; a part's size misses its share by less than a scene.
    """
    groups, members = np.unique(scene, return_inverse=True)
    num_classes = int(y.max(initial=-1)) + 2
    counts = np.zeros((len(groups), num_classes), np.int64)
    np.add.at(counts, (members, y + 1), 1)
    total, sizes = counts.sum(axis=0), counts.sum(axis=1)
    wanted = np.outer(shares, total)
    scarcity = (counts / np.maximum(total, 1)).sum(axis=1) / sizes
    shuffled = generator.permutation(len(groups))
    order = shuffled[np.lexsort((-scarcity[shuffled], -sizes[shuffled]))]
    part, missing = np.zeros(len(groups), np.int64), wanted.copy()
    for one in order:
        room = missing.sum(axis=1)
        fits = room >= min(float(sizes[one]), float(room.max())) - 1e-9
        need = (missing / np.maximum(wanted, 1e-9)) @ counts[one]
        part[one] = np.where(fits, need, -np.inf).argmax()
        missing[part[one]] -= counts[one]
    return part[members]
