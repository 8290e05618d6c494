"""A user's images with boxes in COCO's JSON format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedssl.config import ConfigError, option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes
from fedssl.data.sources.box_checks import XYWH, Notes
from fedssl.data.sources.coco_json import AnnotationFile, Annotations, Image, read_files
from fedssl.data.sources.image_names import AmbiguousName, Names, shown
from fedssl.data.sources.layout import UNLABELLED, Layout, part_by_folder, part_of
from fedssl.data.sources.pictures import Row, Tabled

PATTERN = "annotations/*.json"
PLACES = ("annotations/instances_*.json", PATTERN, "*/_annotations.coco.json", "*.json", "*/*.json")
"""Where the JSON files of a folder without a table may be; the first with a file counts."""


@register("coco")
@dataclass
class Coco(Tabled):
    """Images anywhere in the folder, boxes in COCO's JSON; crowds are left out.

    A table's `images/a.jpg` is `file_name` a.jpg or images/a.jpg, also of another machine's path. Images of a JSON
    without `annotations` are unlabelled. Without a table, each JSON is of a part, by its name or folder: train, val or
    test.
    """

    reading: ClassVar[str] = XYWH

    annotations: str = option(PATTERN, "the JSON files in the folder, `*` for any text in a name")

    def read(self) -> Dataset:
        """Decode and check everything."""
        self._file_of: dict[str, str] = {}
        self._images = self._by_name() if self.dealt else {}
        self._names = Names(self._images)
        return super().read()

    def names(self) -> tuple[str, ...]:
        """Return the categories' names, by their number."""
        return self._read().names

    def remarks(self) -> tuple[str, ...]:
        """Return what there is to say of the folder and the JSON files."""
        for note in self._read().notes:
            self._layout_notes.count(*note)
        return super().remarks()

    def annotation_files(self) -> list[Path]:
        """Return the JSON files. Raises ConfigError if there are none."""
        places = PLACES if self.annotations == PATTERN and not self.dealt else (self.annotations,)
        try:
            found = next((files for place in places if (files := sorted(self.folder().glob(place)))), [])
        except (ValueError, NotImplementedError):
            raise ConfigError("data.annotations", self.annotations, "a pattern inside data.path") from None
        if not found:
            raise self.refuse(f"annotations are in {' or '.join(places)} (found: {self.summary()})")
        return found

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Return the boxes of the picture of that name. Raises ConfigError if it is another's, or of another size."""
        name = row.file if not self.dealt else self._name(row)
        if name is None or (image := self._images.get(name)) is None:
            return None
        if (other := self._file_of.setdefault(name, row.file)) != row.file:
            raise self.refuse(f"annotations tell {other} and {row.file} apart: both are file_name {name}")
        self.check_size(name, image.size, height, width)
        self.ignored(image.crowds, f"{image.json}: {row.file}", row, len(image.boxes.classes))
        return image.boxes

    def where(self, row: Row, number: int) -> str:
        """Return the JSON file and the annotation's id."""
        image = self._images[row.file if not self.dealt else self._name(row) or ""]
        return f"{image.json}: annotation {number} ({shown([row.file])})"

    def looked_for(self, row: Row) -> str:
        """Return some names that the annotations have."""
        names = [name for file in self._read().files if file.annotated for name in file.images]
        return f"for {row.file} among the file_name of {self.annotations}: {shown(names) or 'none'}"

    def layout(self, images: Sequence[str], notes: Notes) -> Layout:
        """Return the images that the JSON files list, by their parts, and those of folders named `unlabelled`."""
        layout, names = Layout(), Names(images, by_file=True)
        self._images = {}
        for file, part in self._parts():
            places = self._places(file, part, names, notes)
            annotated = file.annotated and part != UNLABELLED
            if annotated:
                self._images |= {place: file.images[name] for name, place in places.items()}
                layout.add(part, places.values())
            elif part in ("train", UNLABELLED):
                layout.add(UNLABELLED, places.values())
        layout.unlabelled_folders(images)
        return layout

    def _parts(self) -> list[tuple[AnnotationFile, str]]:
        """Return each JSON file with its part; a single one may be of none and is then of `train`."""
        files = self._read().files
        parts = []
        for file in files:
            place = self.shown(file.place)
            part = part_of(file.place.name) or part_by_folder(place)
            if not part and len(files) > 1:
                others = shown((self.shown(one.place) for one in files), 6)
                raise self.refuse(f"JSON files are named train, val or test, or are in such folders, not {others}")
            parts.append((file, part or "train"))
        return parts

    def _places(self, file: AnnotationFile, part: str, names: Names, notes: Notes) -> dict[str, str]:
        """Return the image file of each `file_name` of a JSON file; those of other parts' folders do not count.

        Of several, those in a folder of its part count, of these then those beside the JSON file.
        """
        beside = f"{self.shown(file.place.parent)}/"
        places: dict[str, str] = {}
        missing = []
        for name in file.images:
            try:
                place = names.find(
                    name,
                    lambda path: part_by_folder(path) in ("", part),
                    lambda path: part_by_folder(path) == part,
                    lambda path: path.startswith(beside),
                )
            except AmbiguousName as error:
                both = " or ".join(error.files)
                raise self.refuse(
                    f"images are told apart by file_name, but {name} of {file.place.name} may be {both}"
                ) from None
            if place is None:
                missing.append(name)
            else:
                places[name] = place
        if not places and file.images:
            problem = f"images are those of {self.shown(file.place)}, which has as file_name {shown(missing)}"
            raise self.refuse(f"{problem} (found: {self.summary()})")
        self._check_apart(places, file)
        notes.count(f"images of {self.shown(file.place)} that are not there", len(missing), shown(missing, 1))
        return places

    def _check_apart(self, places: dict[str, str], file: AnnotationFile) -> None:
        first: dict[str, str] = {}
        for name, place in places.items():
            if (other := first.setdefault(place, name)) != name:
                both = f"{other} and {name}"
                raise self.refuse(f"images are told apart by file_name, but {both} of {file.place.name} fit {place}")

    def _name(self, row: Row) -> str | None:
        try:
            return self._names.find(row.file)
        except AmbiguousName as error:
            problem = f"{row.file} may be file_name {' or '.join(error.files)}"
            raise self.refuse(f"table names each image so that one file_name fits, but {problem}") from None

    def _by_name(self) -> dict[str, Image]:
        """Return the annotated images of all JSON files by their `file_name`."""
        images: dict[str, Image] = {}
        for file in self._read().files:
            if file.annotated:
                if twice := next((name for name in file.images if name in images), None):
                    problem = f"{file.place.name}: two images have the file_name {twice}"
                    raise self.refuse(f"{self.annotations} is in COCO's format ({problem})")
                images |= file.images
        return images

    def _read(self) -> Annotations:
        files = self.annotation_files()
        try:
            return read_files(tuple((str(file), file.stat().st_mtime_ns) for file in files))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise self.refuse(f"{self.annotations} is in COCO's format ({reason})") from None
