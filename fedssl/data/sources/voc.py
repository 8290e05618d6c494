"""A user's images with one XML file of boxes each, in the format of PASCAL VOC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple
from xml.etree import ElementTree

import numpy as np

from fedssl.config import option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes, pixels
from fedssl.data.sources.box_checks import XYXY, Notes
from fedssl.data.sources.image_names import AmbiguousName, Names, present, shown
from fedssl.data.sources.layout import PARTS, TRAIN, UNLABELLED, Layout, part_by_folder
from fedssl.data.sources.pictures import Row, Tabled

_LISTS = "ImageSets/Main"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Object(NamedTuple):
    """One object of a file: class, corners in pixels, whether it is marked as difficult, and its place from 1."""

    name: str
    xyxy: tuple[float, ...]
    difficult: bool
    number: int


class File(NamedTuple):
    """What a file says: the picture's width and height, 0 where it does not say, and the objects."""

    size: tuple[int, int]
    objects: tuple[Object, ...]


@register("voc")
@dataclass
class Voc(Tabled):
    """Images anywhere in the folder, boxes in `Annotations/NAME.xml` for an image of the name NAME, or beside it.

    Corners are taken as they are written. Class numbers follow the names' alphabet. Without a table, the parts are
    those of `ImageSets/Main/*.txt`, else of folders; images without an XML file are unlabelled.
    """

    reading: ClassVar[str] = XYXY

    annotations: str = option("", "the folder of the XML files, in data.path; empty = `Annotations` or `annotations`")
    difficult: bool = option(False, "keep objects that are marked as difficult")

    def read(self) -> Dataset:
        """Decode and check everything."""
        self._number = {name: i for i, name in enumerate(self.names())}
        return super().read()

    def names(self) -> tuple[str, ...]:
        """Return the names of all objects, sorted. Raises ConfigError if there are none."""
        found = sorted({one.name for place in self._xml_files() for one in self._kept(place)})
        if not found:
            had = f"{self._annotations().name} has an XML file with an object (data.annotations)"
            raise self.refuse(f"{had} (found: {self.summary()})")
        return tuple(found)

    def annotation_files(self) -> list[Path]:
        """Return the lists of names and the XML files. Raises ConfigError if two images share one."""
        return [*([] if self.dealt else self._lists().values()), *self._xml_files()]

    def _xml_files(self) -> list[Path]:
        places: set[Path] = set()
        for row in self.rows():
            if not (place := self._place(row.file)).is_file():
                continue
            if place in places:
                what = "table has" if self.dealt else "parts have"
                raise self.refuse(f"{what} one picture of the name {place.stem}")
            places.add(place)
        return sorted(places)

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Return a picture's boxes. Raises ConfigError if the file is of a picture of another size."""
        place = self._place(row.file)
        if not place.is_file() or (not self.dealt and part_by_folder(row.file) == UNLABELLED):
            return None
        self.check_size(place.name, self._read(place).size, height, width)
        objects = self._kept(place)
        difficult = len(self._read(place).objects) - len(objects)
        self.ignored(difficult, self.shown(place), row, len(objects))
        xyxy = pixels([one.xyxy for one in objects]).reshape(-1, 4)
        classes, number = ([self._number[one.name] for one in objects], [one.number for one in objects])
        return Boxes(xyxy, np.array(classes, np.int64), np.array(number, np.int64))

    def where(self, row: Row, number: int) -> str:
        """Return the XML file and the place among its objects."""
        return f"{self.shown(self._place(row.file))}: object {number}"

    def looked_for(self, row: Row) -> str:
        """Return the place of an image's XML file."""
        return f"for {self.shown(self._place(row.file))}"

    def layout(self, images: Sequence[str], notes: Notes) -> Layout:
        """Return the images by the lists of names or their folders; those without XML are unlabelled or left out."""
        listed, layout = Layout(), Layout()
        if lists := self._lists():
            self._by_lists(lists, images, listed)
        else:
            listed.by_folders(images)
        for part, files in listed.files.items():
            has = [self._place(file).is_file() for file in files]
            annotated = [file for file, known in zip(files, has, strict=True) if known]
            missing = [file for file, known in zip(files, has, strict=True) if not known]
            layout.add(part, annotated if part != UNLABELLED else files)
            if part == TRAIN and files and not annotated:
                place = self.shown(self._place(files[0]))
                raise self.refuse(f"training images have XML files, as {place} (found: {self.summary()})")
            if part == TRAIN:
                layout.add(UNLABELLED, missing)
                notes.count("training images without an XML file, unlabelled", len(missing), shown(missing, 1))
        layout.unlabelled_folders(images)
        return layout

    def _lists(self) -> dict[str, Path]:
        """Return the lists of names by part; `trainval` serves where there is no `train`."""
        folder = self.folder() / _LISTS
        found = {part: place for part in PARTS if (place := present(folder / f"{part}.txt")).is_file()}
        both = present(folder / "trainval.txt")
        return found if TRAIN in found or not both.is_file() else {TRAIN: both, **found}

    def _by_lists(self, lists: dict[str, Path], images: Sequence[str], layout: Layout) -> None:
        file_of: dict[str, str] = {}
        for file in images:
            name = file.rpartition(".")[0]
            if (other := file_of.setdefault(name, file)) != file:
                raise self.refuse(f"images differ in more than their ending, unlike {other} and {file}")
        names = Names(file_of, by_file=True)
        for part, place in lists.items():
            for number, line in enumerate(self._lines(place), 1):
                problem = f"{self.shown(place)} names images in the folder, but line {number} is {line!r}"
                try:
                    found = names.find(line) or names.find(line.rpartition(".")[0])
                except AmbiguousName as error:
                    raise self.refuse(f"{problem}, which may be {' or '.join(error.files)}") from None
                if found is None:
                    raise self.refuse(f"{problem} (found: {self.summary()})")
                layout.add(part, [file_of[found]])

    def _lines(self, place: Path) -> list[str]:
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise self.refuse(f"{self.shown(place)} can be read ({error})") from None
        return [line.strip() for line in lines if line.strip()]

    def _place(self, image: str) -> Path:
        """Return the XML file of an image: in the folder of annotations, there in the image's folder, or beside it.

        Beside it may be in `annotations` for the folder `images` of its path. The first of these if none is there.
        """
        places = self._places(PurePosixPath(image).with_suffix(".xml"))
        first = present(next(places))
        if first.is_file():
            return first
        return next((found for place in places if (found := present(place)).is_file()), first)

    def _places(self, file: PurePosixPath) -> Iterator[Path]:
        folder = self._annotations()
        yield folder / file.name
        for start in range(len(file.parts) - 1):
            yield folder.joinpath(*file.parts[start:])
        if not self.annotations:
            yield self.folder() / file
            parts = [*file.parts]
            for place in [i for i, name in enumerate(parts[:-1]) if name == "images"][-1:]:
                parts[place] = "annotations"
                yield self.folder().joinpath(*parts)

    def _kept(self, place: Path) -> list[Object]:
        return [one for one in self._read(place).objects if self.difficult or not one.difficult]

    def _read(self, place: Path) -> File:
        try:
            return _parsed(place, place.stat().st_mtime_ns)
        except (OSError, ValueError, SyntaxError) as error:
            reason = " ".join(str(error).split())[:80]
            raise self.refuse(f"{self.shown(place)} is in VOC's format ({reason})") from None

    def _annotations(self) -> Path:
        published = [self.folder() / name for name in ("Annotations", "annotations")]
        found = next((place for place in published if place.is_dir()), published[0])
        return self.folder() / self.annotations if self.annotations else found


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
        difficult = (one.findtext("difficult") or "0").strip() == "1"
        objects.append(Object(name, xyxy, difficult, len(objects) + 1))
    width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    return File((width, height), tuple(objects))
