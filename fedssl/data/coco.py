"""A user's pictures with boxes in COCO's JSON format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fedssl.config import option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes
from fedssl.data.pictures import Row, Tabled

_CORNERS = 4


@dataclass(frozen=True)
class Image:
    """What is said of a picture: width and height, 0 where it is not said, and the boxes."""

    size: tuple[int, int]
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
        return super().read()

    def names(self) -> tuple[str, ...]:
        """Give the categories' names, by their number."""
        return self._read().names

    def annotation_files(self) -> list[Path]:
        """Give the JSON files. Raises ConfigError if there are none."""
        found = sorted(self.folder().glob(self.annotations))
        if not found:
            raise self.refuse(f"annotations are in {self.annotations}")
        return found

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Give the boxes of the picture of that name. Raises ConfigError if it is another's, or of another size."""
        images, parts = self._read().images, PurePosixPath(row.file).parts
        name = next((end for i in range(len(parts)) if (end := "/".join(parts[i:])) in images), None)
        if name is None:
            return None
        if (other := self._file_of.setdefault(name, row.file)) != row.file:
            raise self.refuse(f"annotations tell {other} and {row.file} apart: both are file_name {name}")
        size = images[name].size
        if all(size) and size != (width, height):
            raise self.refuse(f"annotation of {name} is of a picture of {width}x{height}, not {size[0]}x{size[1]}")
        return images[name].boxes

    def _read(self) -> Annotations:
        files = self.annotation_files()
        try:
            return _merged(tuple((str(file), file.stat().st_mtime_ns) for file in files))
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise self.refuse(f"{self.annotations} is in COCO's format ({reason})") from None


@lru_cache(maxsize=1)
def _merged(files: tuple[tuple[str, int], ...]) -> Annotations:
    """Read JSON files; the times are there so that a changed file is read again. Raises ValueError, OSError."""
    contents = {Path(file).name: _content(Path(file)) for file, _ in files}
    categories: dict[int, str] = {}
    for file, one in ((file, one) for file, content in contents.items() for one in content["categories"]):
        number, name = _get(one, "id", f"{file}: a category"), str(_get(one, "name", f"{file}: a category"))
        if categories.setdefault(int(number), name) != name:
            raise ValueError(f"{file}: category {number} is {categories[int(number)]} and {name}")
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
    held: dict[Any, list[tuple[list[float], int]]] = {
        _get(one, "id", f"{file}: an image"): [] for one in content["images"]
    }
    for one in content["annotations"]:
        told = f"{file}: annotation {one.get('id', '')}".rstrip()
        image, category, box = (_get(one, key, told) for key in ("image_id", "category_id", "bbox"))
        if image not in held:
            raise ValueError(f"{told} is of image {image}, which is not there")
        if category not in place:
            raise ValueError(f"{told} is of category {category}, which is not there")
        if len(box) != _CORNERS:
            raise ValueError(f"{told} has a bbox of {len(box)} numbers, not {_CORNERS}")
        if not one.get("iscrowd", 0):
            held[image].append((box, place[category]))
    for one in content["images"]:
        mine = held[one["id"]]
        corner = np.array([box for box, _ in mine], np.float64).reshape(-1, _CORNERS)
        corner[:, 2:] += corner[:, :2]
        boxes = Boxes(corner.astype(np.float32), np.array([number for _, number in mine], np.int64))
        size = (int(one.get("width") or 0), int(one.get("height") or 0))
        yield str(_get(one, "file_name", f"{file}: image {one['id']}")), Image(size, boxes)


def _content(file: Path) -> dict[str, Any]:
    """Read a file. Raises ValueError if it does not hold images and categories."""
    found = json.loads(file.read_text(encoding="utf-8"))
    for key in ("images", "categories"):
        if not isinstance(found, dict) or not isinstance(found.get(key), list):
            raise ValueError(f"{file.name} has no {key}: data.annotations chooses the files")
    content: dict[str, Any] = found
    return content


def _get(one: dict[str, Any], key: str, where: str) -> Any:
    """Give a value. Raises ValueError if there is none."""
    if key not in one:
        raise ValueError(f"{where} has no {key}")
    return one[key]
