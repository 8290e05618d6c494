"""COCO's JSON format: class names, images and their boxes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedssl.data.boxes import Boxes, pixels

T = TypeVar("T")
_CORNERS = 4
_POINTS = 6
"""The fewest numbers of a polygon, three points."""


@dataclass(frozen=True)
class Image:
    """What is said of an image: the file that says it, width and height, 0 where not said, boxes, number of crowds."""

    json: str
    size: tuple[float, float]
    boxes: Boxes
    crowds: int


@dataclass(frozen=True)
class AnnotationFile:
    """What a JSON file says: images by their `file_name`, and whether they are annotated."""

    place: Path
    annotated: bool
    images: dict[str, Image]


@dataclass(frozen=True)
class Annotations:
    """What JSON files say: class names by category number, the files, and what to tell the user, with a first case."""

    names: tuple[str, ...]
    files: tuple[AnnotationFile, ...]
    notes: tuple[tuple[str, int, str], ...]


@lru_cache(maxsize=1)
def read_files(files: tuple[tuple[str, int], ...]) -> Annotations:
    """Read JSON files; the times are there so that a changed file is read again. Raises ValueError, OSError."""
    contents = {Path(file): _content(Path(file)) for file, _ in files}
    names, place, alike = _classes(contents)
    read = tuple(_of_file(file, content, place) for file, content in contents.items())
    twice = [(file.name, number) for file, content in contents.items() for number in _repeated(content)]
    notes = [("categories of the same name, taken as one", len(alike), alike[0])] if alike else []
    if twice:
        notes.append(("annotation ids that occur twice", len(twice), f"{twice[0][0]}: annotation {twice[0][1]}"))
    return Annotations(names, read, tuple(notes))


def _classes(contents: dict[Path, dict[str, Any]]) -> tuple[tuple[str, ...], dict[int, int], list[str]]:
    """Return class names by category number, the class of each category, and categories whose name another one has."""
    categories: dict[int, str] = {}
    for file, one in ((file.name, one) for file, content in contents.items() for one in content["categories"]):
        number, name = _get(one, "id", int, f"{file}: a category"), _get(one, "name", str, f"{file}: a category")
        if categories.setdefault(number, name.strip()) != name.strip():
            raise ValueError(f"{file}: category {number} is {categories[number]} and {name}")
    if not categories:
        raise ValueError("no categories")
    first: dict[str, int] = {}
    alike = []
    for number in sorted(categories):
        if (other := first.setdefault(categories[number], number)) != number:
            alike.append(f"{categories[number]}, ids {other} and {number}")
    names = tuple(first)
    return names, {number: names.index(name) for number, name in categories.items()}, alike


def _repeated(content: dict[str, Any]) -> list[str]:
    ids = Counter(str(one["id"]) for one in content.get("annotations", ()) if one.get("id") is not None)
    return [number for number, count in ids.items() if count > 1]


def _of_file(file: Path, content: dict[str, Any], place: dict[int, int]) -> AnnotationFile:
    """Read a file's images; `place` is the class of each category."""
    held: dict[str, list[tuple[tuple[float, ...], int, int]]] = {}
    crowds: Counter[str] = Counter()
    for one in content["images"]:
        if (number := _get(one, "id", str, f"{file.name}: an image")) in held:
            raise ValueError(f"{file.name}: two images have the id {number}")
        held[number] = []
    for row, one in enumerate(content.get("annotations", ()), 1):
        where = f"{file.name}: annotation {_get(one, 'id', str, '', f'number {row}')}"
        image = _get(one, "image_id", str, where)
        if image not in held:
            raise ValueError(f"{where} is of image {image}, which is not there")
        if _get(one, "iscrowd", int, where, 0) or _get(one, "ignore", int, where, 0):
            crowds[image] += 1
            continue
        category = _get(one, "category_id", int, where)
        if category not in place:
            raise ValueError(f"{where} is of category {category}, which is not there")
        held[image].append((_box(one, where), place[category], _number(one.get("id"), row)))
    images: dict[str, Image] = {}
    for one in content["images"]:
        where, number = f"{file.name}: image {one['id']}", str(one["id"])
        size = (_get(one, "width", float, where, 0.0), _get(one, "height", float, where, 0.0))
        if (name := _get(one, "file_name", str, where)) in images:
            raise ValueError(f"{file.name}: two images have the file_name {name}")
        images[name] = Image(file.name, size, _boxes(held[number]), crowds[number])
    return AnnotationFile(file, "annotations" in content, images)


def _boxes(rows: Sequence[tuple[tuple[float, ...], int, int]]) -> Boxes:
    corner = np.array([box for box, _, _ in rows], np.float64).reshape(-1, _CORNERS)
    corner[:, 2:] += corner[:, :2]
    classes, number = (np.array([row[column] for row in rows], np.int64) for column in (1, 2))
    return Boxes(pixels(corner), classes, number)


def _number(given: Any, row: int) -> int:
    """Return an annotation's id if it is a number, else its row."""
    try:
        return int(np.int64(given))
    except (TypeError, ValueError, OverflowError):
        return row


def _content(file: Path) -> dict[str, Any]:
    """Read a file. Raises ValueError if it does not hold images and categories."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name}: {error}") from None
    for key in ("images", "categories", "annotations"):
        held = found.get(key, [] if key == "annotations" else None) if isinstance(found, dict) else None
        if not isinstance(held, list):
            raise ValueError(f"{file.name} has no list of {key}: data.annotations chooses the files")
    content: dict[str, Any] = found
    return content


def _get(one: Any, key: str, kind: Callable[[Any], T], where: str, default: T | None = None) -> T:
    """Return a value. Raises ValueError if it is not there, or not of the kind."""
    value = one.get(key) if isinstance(one, dict) else None
    if value is None:
        if default is None:
            raise ValueError(f"{where} has no {key}")
        return default
    try:
        return kind(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{where} has as {key} {str(value)[:40]}") from None


def _box(one: dict[str, Any], where: str) -> tuple[float, ...]:
    """Return left, top, width, height, of an annotation without `bbox` those around its polygons."""
    if not one.get("bbox") and (polygons := one.get("segmentation")) and isinstance(polygons, list):
        corners = [point for polygon in polygons for point in _get({"polygon": polygon}, "polygon", _points, where)]
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        return (*low.tolist(), *(high - low).tolist())
    return _get(one, "bbox", _sides, where)


def _sides(value: Any) -> tuple[float, ...]:
    left, top, width, height = (float(number) for number in value)
    return left, top, width, height


def _points(value: Any) -> list[tuple[float, float]]:
    numbers = [float(number) for number in value]
    if len(numbers) < _POINTS or len(numbers) % 2:
        raise ValueError
    return list(zip(numbers[::2], numbers[1::2], strict=True))
