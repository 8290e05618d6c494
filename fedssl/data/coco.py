"""A user's pictures with boxes in COCO's JSON format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fedssl.config import option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes
from fedssl.data.pictures import Row, Tabled


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
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
            raise self.refuse(f"{self.annotations} is in COCO's format ({reason})") from None


@lru_cache(maxsize=1)
def _merged(files: tuple[tuple[str, int], ...]) -> Annotations:
    """Read JSON files; the times are there so that a changed file is read again. Raises ValueError, KeyError, ..."""
    contents = [json.loads(Path(file).read_text(encoding="utf-8")) for file, _ in files]
    categories: dict[int, str] = {}
    for one in (one for content in contents for one in content["categories"]):
        if categories.setdefault(int(one["id"]), str(one["name"])) != str(one["name"]):
            raise ValueError(f"category {one['id']} is {categories[int(one['id'])]} and {one['name']}")
    names = tuple(categories[number] for number in sorted(categories))
    if not names or len(set(names)) != len(names):
        raise ValueError("categories must have different names, the same in all files")
    place = {number: i for i, number in enumerate(sorted(categories))}
    images: dict[str, Image] = {}
    for content in (one for one in contents if "annotations" in one):
        held: dict[Any, list[dict[str, Any]]] = {one["id"]: [] for one in content["images"]}
        for one in content["annotations"]:
            if not one.get("iscrowd", 0):
                held[one["image_id"]].append(one)
        for image in content["images"]:
            mine = held[image["id"]]
            corner = np.array([one["bbox"] for one in mine], np.float64).reshape(-1, 4)
            corner[:, 2:] += corner[:, :2]
            classes = np.array([place[int(one["category_id"])] for one in mine], np.int64)
            if str(image["file_name"]) in images:
                raise ValueError(f"two images have the file_name {image['file_name']}")
            size = (int(image.get("width") or 0), int(image.get("height") or 0))
            images[str(image["file_name"])] = Image(size, Boxes(corner.astype(np.float32), classes))
    return Annotations(names, images)
