"""A user's pictures with one XML file of boxes each, in the format of PASCAL VOC."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from fedssl.config import option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes
from fedssl.data.sources.pictures import Row, Tabled

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Object(NamedTuple):
    """One object of a file: class, corners in pixels, and whether it is marked as difficult."""

    name: str
    xyxy: tuple[float, ...]
    difficult: bool


class File(NamedTuple):
    """What a file says: the picture's width and height, 0 where it does not say, and the objects."""

    size: tuple[int, int]
    objects: tuple[Object, ...]


@register("voc")
@dataclass
class Voc(Tabled):
    """Pictures anywhere in the folder, boxes in `Annotations/NAME.xml` for a picture of the name NAME.

    Corners are taken as they are written. Class numbers follow the names' alphabet.
    """

    annotations: str = option("", "the folder of the XML files, in data.path; empty = `Annotations` or `annotations`")
    difficult: bool = option(False, "keep objects that are marked as difficult")

    def read(self) -> Dataset:
        """Decode and check everything."""
        self._number = {name: i for i, name in enumerate(self.names())}
        return super().read()

    def names(self) -> tuple[str, ...]:
        """Give the names of all objects, sorted. Raises ConfigError if there are none."""
        found = sorted({one.name for place in self.annotation_files() for one in self._kept(place)})
        if not found:
            raise self.refuse(f"{self._annotations().name} has an XML file with an object (data.annotations)")
        return tuple(found)

    def annotation_files(self) -> list[Path]:
        """Give the XML files of the pictures in the table. Raises ConfigError if two pictures share one."""
        places: set[Path] = set()
        folder = self._annotations()
        for row in self.rows():
            if (place := _place(folder, row)) in places:
                raise self.refuse(f"table has one picture of the name {place.stem}")
            places.add(place)
        return sorted(place for place in places if place.is_file())

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Give a picture's boxes. Raises ConfigError if the file is of a picture of another size."""
        place = _place(self._annotations(), row)
        if not place.is_file():
            return None
        self.check_size(place.name, self._read(place).size, height, width)
        objects = self._kept(place)
        xyxy = np.array([one.xyxy for one in objects], np.float32).reshape(-1, 4)
        return Boxes(xyxy, np.array([self._number[one.name] for one in objects], np.int64))

    def _kept(self, place: Path) -> list[Object]:
        return [one for one in self._read(place).objects if self.difficult or not one.difficult]

    def _read(self, place: Path) -> File:
        try:
            return _parsed(place, place.stat().st_mtime_ns)
        except (OSError, ValueError, SyntaxError) as error:
            reason = " ".join(str(error).split())[:80]
            raise self.refuse(f"{self.shown(place)} is in VOC's format ({reason})") from None

    def _annotations(self) -> Path:
        published = self.folder() / "Annotations"
        return self.folder() / (self.annotations or ("Annotations" if published.is_dir() else "annotations"))


def _place(folder: Path, row: Row) -> Path:
    return folder / f"{PurePosixPath(row.file).stem}.xml"


@lru_cache(maxsize=65536)
def _parsed(place: Path, changed: int) -> File:
    """Read a file; `changed` is there so that a changed one is read again. Raises OSError, ValueError, SyntaxError."""
    del changed
    root = ElementTree.parse(place).getroot()
    if root.tag != "annotation":
        raise ValueError(f"<{root.tag}> instead of <annotation>")
    objects: list[Object] = []
    for one in root.iter("object"):
        name, words = (one.findtext("name") or "").strip(), [one.findtext(f"bndbox/{corner}") for corner in _CORNERS]
        if not name or None in words:
            raise ValueError(f"object {len(objects) + 1} lacks a name or a corner")
        xyxy = tuple(float(word or "") for word in words)
        if not np.isfinite(xyxy).all():
            raise ValueError(f"object {len(objects) + 1} has a corner that is no number")
        objects.append(Object(name, xyxy, (one.findtext("difficult") or "0").strip() == "1"))
    width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    return File((width, height), tuple(objects))
