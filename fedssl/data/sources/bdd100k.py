"""BDD100K (Yu et al. 2020), dealt by its weather tags as in FedSTO (Kim et al. 2023), from files that the user has."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from fedssl.config import option, sha256
from fedssl.data.base import register
from fedssl.data.boxes import Boxes, pixels
from fedssl.data.cache import cache_directory, replace_whole
from fedssl.data.sources.box_checks import XYXY
from fedssl.data.sources.layout import TRAIN
from fedssl.data.sources.pictures import NOBODY, Pictures, Row
from fedssl.data.sources.weather import WEATHERS
from fedssl.rng import Rng

TAGS = ("partly cloudy", "overcast", "rainy", "snowy")
"""BDD100K's own words for `WEATHERS`."""
FIVE = ["person", "car", "bus", "truck", "traffic sign"]
_VERSION = 1
_SYNONYMS = {"pedestrian": "person"}


@register("bdd100k")
@dataclass
class Bdd100k(Pictures):
    """Driving scenes: `images/100k/{train,val}/*.jpg` and `labels/det_20/det_{train,val}.json` in the folder.

    Server cloudy, clients overcast, rainy, snowy; the published validation split is what is scored.
    """

    reading: ClassVar[str] = XYXY

    size: int = option(640, "side of the square that pictures are fitted into, in pixels", low=32, multiple=32)
    classes: list[str] = option(FIVE, "names of the classes that count, in order (FedSTO, section 5); empty = all")
    weather: str = option(
        "noniid", "`noniid`: a weather a party; `iid`: every party has all four", choices=("noniid", "iid")
    )
    per_weather: int = option(1, "clients of each of the three weathers: 1 is 3 clients, 33 is 99", low=1)
    pictures: int = option(5000, "training pictures of each weather, the first by name", low=1)
    test_pictures: int = option(0, "pictures of each weather that are scored, the first by name; 0 = all", low=0)
    seed: int = option(0, "of the dealing; independent of the run's seed", low=0)

    def rows(self) -> list[Row]:
        """Deal the pictures by their tags; `val` and `test` are both the published validation split.

        Kept in the cache, so that not every process reads the large files.
        """
        files = [self.state(file) for file in self.annotation_files()]
        dealing = (self.weather, self.per_weather, self.pictures, self.test_pictures, self.seed, self.evaluate_on)
        place = cache_directory() / f"bdd100k-{sha256(repr((_VERSION, self.path, files, dealing)))}.json"
        with suppress(OSError, ValueError, TypeError):
            return [Row(*row) for row in json.loads(place.read_text(encoding="utf-8"))]
        rows = self._dealt()
        text = json.dumps([astuple(row) for row in rows])
        replace_whole(place, lambda file: file.write_text(text, encoding="utf-8"))
        return rows

    def _dealt(self) -> list[Row]:
        weather = np.repeat(np.arange(4), [len(files) for files in self._by_weather("train", self.pictures)])
        files = [file for found in self._by_weather("train", self.pictures) for file in found]
        parties = self._parties(weather)
        rows = [
            Row(file, TRAIN, int(party), WEATHERS[one])
            for file, party, one in zip(files, parties, weather, strict=True)
        ]
        for one, found in enumerate(self._by_weather("val", self.test_pictures)):
            rows += [Row(file, self.evaluate_on, NOBODY, WEATHERS[one]) for file in found]
        return rows

    def names(self) -> tuple[str, ...]:
        """Return all categories that occur, sorted."""
        return self._read()[0]

    def annotation_files(self) -> list[Path]:
        """Return the two JSON files."""
        return [self.folder() / "labels" / "det_20" / f"det_{part}.json" for part in ("train", "val")]

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Return the boxes of the picture of that name."""
        del height, width
        return self._read()[2].get(PurePosixPath(row.file).name)

    def where(self, row: Row, number: int) -> str:
        """Return the image and the place among its boxes."""
        return f"box2d {number} of {PurePosixPath(row.file).name}"

    def _by_weather(self, part: str, most: int) -> list[list[str]]:
        tags = self._read()[1][part]
        found = [sorted(name for name, tag in tags.items() if tag == wanted) for wanted in TAGS]
        return [[f"images/100k/{part}/{name}" for name in names[: most or None]] for names in found]

    def _parties(self, weather: np.ndarray) -> np.ndarray:
        """Return each picture's party: client 3 j + w - 1 is the j-th of weather w; `iid` deals them all out evenly."""
        shuffled = Rng(self.seed).numpy("bdd100k parties").permutation(len(weather))
        party = np.zeros(len(weather), np.int64)
        for one in range(4):
            mine = shuffled[weather[shuffled] == one]
            place = np.arange(len(mine))
            if self.weather == "noniid":
                party[mine] = 0 if one == 0 else 1 + 3 * (place % self.per_weather) + one - 1
            else:
                # The server has as much as one weather; clients share the rest.
                party[mine] = np.where(place % 4 == 0, 0, 1 + (place - place // 4 - 1) % (3 * self.per_weather))
        return party

    def _read(self) -> tuple[tuple[str, ...], dict[str, dict[str, str]], dict[str, Boxes]]:
        files = self.annotation_files()
        try:
            return _scalabel(tuple((str(file), file.stat().st_mtime_ns) for file in files))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
            raise self.refuse(f"labels/det_20/det_train.json and det_val.json are BDD100K's ({reason})") from None


@lru_cache(maxsize=1)
def _scalabel(
    files: tuple[tuple[str, int], ...],
) -> tuple[tuple[str, ...], dict[str, dict[str, str]], dict[str, Boxes]]:
    """Return class names, each part's weather tags by file name, and boxes by file name, from the det_20 files."""
    frames: dict[str, list[dict[str, Any]]] = {
        part: json.loads(Path(file).read_text(encoding="utf-8"))
        for part, (file, _) in zip(("train", "val"), files, strict=True)
    }
    everything = [frame for part in frames.values() for frame in part]
    names = tuple(sorted({_name(label) for frame in everything for label in _labels(frame)}))
    place = {name: i for i, name in enumerate(names)}
    boxes = {}
    for frame in everything:
        xyxy = [[label["box2d"][side] for side in ("x1", "y1", "x2", "y2")] for label in _labels(frame)]
        classes = np.array([place[_name(label)] for label in _labels(frame)], np.int64)
        boxes[str(frame["name"])] = Boxes(pixels(xyxy).reshape(-1, 4), classes)
    tags = {
        part: {str(one["name"]): str(one["attributes"]["weather"]) for one in found} for part, found in frames.items()
    }
    return names, tags, boxes


def _labels(frame: dict[str, Any]) -> list[dict[str, Any]]:
    return [label for label in frame.get("labels") or () if label.get("box2d")]


def _name(label: dict[str, Any]) -> str:
    name = str(label["category"])
    return _SYNONYMS.get(name, name)
