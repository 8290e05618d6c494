"""A user's pictures with boxes in COCO's JSON format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from fedssl.config import ConfigError, option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes
from fedssl.data.sources.pictures import Row, Tabled

T = TypeVar("T")
_CORNERS = 4


@dataclass(frozen=True)
class Image:
    """What is said of a picture: width and height, 0 where it is not said, and the boxes."""

    size: tuple[float, float]
    boxes: Boxes


@dataclass(frozen=True)
class Annotations:
    """What JSON files say: class names by category number, and annotated pictures by their `file_name`."""

    names: tuple[str, ...]
    images: dict[str, Image]


@register("coco")
@dataclass
class Coco(Tabled):
    """Pictures anywhere in the folder, boxes in COCO's JSON; crowds are left out.

    A picture is found by the end of its path: `images/a.jpg` in the table is `file_name` a.jpg or images/a.jpg. Those
    of a file without `annotations` are unlabelled.
    """

    annotations: str = option("annotations/*.json", "the JSON files in the folder, `*` for any text in a name")

    def read(self) -> Dataset:
        """Decode and check everything."""
        self._file_of: dict[str, str] = {}
        self._images = self._read().images
        return super().read()

    def names(self) -> tuple[str, ...]:
        """Give the categories' names, by their number."""
        return self._read().names

    def annotation_files(self) -> list[Path]:
        """Give the JSON files. Raises ConfigError if there are none."""
        try:
            found = sorted(self.folder().glob(self.annotations))
        except (ValueError, NotImplementedError):
            raise ConfigError("data.annotations", self.annotations, "a pattern inside data.path") from None
        if not found:
            raise self.refuse(f"annotations are in {self.annotations}")
        return found

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Give the boxes of the picture of that name. Raises ConfigError if it is another's, or of another size."""
        images, parts = self._images, PurePosixPath(row.file).parts
        name = next((end for i in range(len(parts)) if (end := "/".join(parts[i:])) in images), None)
        if name is None:
            return None
        if (other := self._file_of.setdefault(name, row.file)) != row.file:
            raise self.refuse(f"annotations tell {other} and {row.file} apart: both are file_name {name}")
        self.check_size(name, images[name].size, height, width)
        return images[name].boxes

    def _read(self) -> Annotations:
        files = self.annotation_files()
        try:
            return _merged(tuple((str(file), file.stat().st_mtime_ns) for file in files))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise self.refuse(f"{self.annotations} is in COCO's format ({reason})") from None


@lru_cache(maxsize=1)
def _merged(files: tuple[tuple[str, int], ...]) -> Annotations:
    """Read JSON files; the times are there so that a changed file is read again. Raises ValueError, OSError."""
    contents = {Path(file).name: _content(Path(file)) for file, _ in files}
    categories: dict[int, str] = {}
    for file, one in ((file, one) for file, content in contents.items() for one in content["categories"]):
        number, name = _get(one, "id", int, f"{file}: a category"), _get(one, "name", str, f"{file}: a category")
        if categories.setdefault(number, name) != name:
            raise ValueError(f"{file}: category {number} is {categories[number]} and {name}")
    names = tuple(categories[number] for number in sorted(categories))
    if not names or len(set(names)) != len(names):
        raise ValueError("categories must have different names, the same in all files")
    place = {number: i for i, number in enumerate(sorted(categories))}
    images: dict[str, Image] = {}
    for file, content in contents.items():
        if "annotations" in content:
            for name, image in _of_file(file, content, place):
                if name in images:
                    raise ValueError(f"{file}: two images have the file_name {name}")
                images[name] = image
    return Annotations(names, images)


def _of_file(file: str, content: dict[str, Any], place: dict[int, int]) -> Iterator[tuple[str, Image]]:
    """Give a file's pictures by name; `place` is the number of each category."""
    held: dict[str, list[tuple[tuple[float, ...], int]]] = {}
    for one in content["images"]:
        if (number := _get(one, "id", str, f"{file}: an image")) in held:
            raise ValueError(f"{file}: two images have the id {number}")
        held[number] = []
    for one in content["annotations"]:
        told = f"{file}: annotation {_get(one, 'id', str, '', '')}".rstrip()
        if _get(one, "iscrowd", int, told, 0):
            continue
        image, category = _get(one, "image_id", str, told), _get(one, "category_id", int, told)
        if image not in held:
            raise ValueError(f"{told} is of image {image}, which is not there")
        if category not in place:
            raise ValueError(f"{told} is of category {category}, which is not there")
        held[image].append((_get(one, "bbox", _box, told), place[category]))
    for one in content["images"]:
        told = f"{file}: image {one['id']}"
        mine = held[str(one["id"])]
        corner = np.array([box for box, _ in mine], np.float64).reshape(-1, _CORNERS)
        corner[:, 2:] += corner[:, :2]
        boxes = Boxes(corner.astype(np.float32), np.array([number for _, number in mine], np.int64))
        size = (_get(one, "width", float, told, 0.0), _get(one, "height", float, told, 0.0))
        yield _get(one, "file_name", str, told), Image(size, boxes)


def _content(file: Path) -> dict[str, Any]:
    """Read a file. Raises ValueError if it does not hold images and categories."""
    found = json.loads(file.read_text(encoding="utf-8"))
    for key in ("images", "categories", "annotations"):
        held = found.get(key, [] if key == "annotations" else None) if isinstance(found, dict) else None
        if not isinstance(held, list):
            raise ValueError(f"{file.name} has no list of {key}: data.annotations chooses the files")
    content: dict[str, Any] = found
    return content


def _get(one: Any, key: str, kind: Callable[[Any], T], where: str, default: T | None = None) -> T:
    """Give a value. Raises ValueError if it is not there, or not of the kind."""
    value = one.get(key) if isinstance(one, dict) else None
    if value is None:
        if default is None:
            raise ValueError(f"{where} has no {key}")
        return default
    try:
        return kind(value)
    except (ValueError, TypeError):
        raise ValueError(f"{where} has as {key} {str(value)[:40]}") from None


def _box(value: Any) -> tuple[float, ...]:
    left, top, width, height = (float(number) for number in value)
    return left, top, width, height
