"""A user's images with one text file of boxes each, as YOLO trainers read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from fedssl.config import ConfigError
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import NO_BOXES, Boxes
from fedssl.data.sources.box_checks import CXCYWH, Notes
from fedssl.data.sources.image_names import AmbiguousName, Names, components, present, shown
from fedssl.data.sources.layout import PARTS, TEST, UNLABELLED, Layout, part_by_folder
from fedssl.data.sources.pictures import Row, Tabled

NAMES, SETTINGS = "classes.txt", "data.yaml"
_LISTS = ("classes.txt", "obj.names")
_MISSING = "images without a text file of boxes, which count as images without objects"
_ROUNDING = 1e-3
_SHARES, _POLYGON = 4, 6
"""Numbers of a box, and the fewest of a polygon, three points."""


@register("yolo")
@dataclass
class Yolo(Tabled):
    """Images in `images/`, boxes in `labels/` under the same name, class names in `classes.txt` or `data.yaml`.

    A line of a text file is class, centre x, centre y, width, height, or class and the x and y of a polygon's corners;
    all are shares of the image's sides. Without a table, the parts are those of `data.yaml`, else of folders, and an
    image without a text file is one without objects.
    """

    reading: ClassVar[str] = CXCYWH

    def read(self) -> Dataset:
        """Decode and check everything."""
        self._count = len(self.names())
        return super().read()

    def names(self) -> tuple[str, ...]:
        """Read the class names, one a line, or `names` of the YAML file, a list or a map of numbers from 0 on."""
        place = self._named()
        if place.name in _LISTS:
            names: Any = [line for line in self._text(place).splitlines() if line.strip()]
        else:
            try:
                names = self._settings(place)["names"]
                if isinstance(names, dict):
                    held = {int(number): name for number, name in names.items()}
                    names = [held.get(number, "") for number in range(len(held))]
            except (KeyError, ValueError, TypeError) as error:
                raise self._unreadable(place, error) from None
        found = tuple(str(name).strip() for name in names) if isinstance(names, list) else ()
        numbers = {name: [i for i, one in enumerate(found) if one == name] for name in found}
        twice = [f" ({name} is of {both[0]} and {both[1]})" for name, both in numbers.items() if len(both) > 1]
        if not all(found) or not found or twice:
            form = "one a line" if place.name in _LISTS else "from 0 on"
            raise self.refuse(f"{place.name} has different names, {form}{''.join(twice[:1])}")
        return found

    def _named(self) -> Path:
        """Return the file of the class names: a list, else the settings."""
        lists = [place for name in _LISTS if (place := self.folder() / name).is_file()]
        settings = self._settings_file()
        return lists[0] if lists else settings if settings else self.folder() / NAMES

    def _settings_file(self) -> Path | None:
        """Return `data.yaml`, else the only YAML file there is."""
        if (place := self.folder() / SETTINGS).is_file():
            return place
        others = sorted(one for one in self.folder().iterdir() if one.suffix.lower() in (".yaml", ".yml"))
        return others[0] if len(others) == 1 else None

    def _settings(self, place: Path) -> dict[str, Any]:
        import yaml

        try:
            content = yaml.safe_load(self._text(place))
        except yaml.YAMLError as error:
            raise self._unreadable(place, error) from None
        if not isinstance(content, dict):
            raise self._unreadable(place, "no keys and values")
        return content

    def _text(self, place: Path) -> str:
        try:
            return place.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise self._unreadable(place, error) from None

    def _unreadable(self, place: Path, reason: object) -> ConfigError:
        problem = f"{place.name}: {' '.join(str(reason).split())[:80]}"
        return self.refuse(f"{NAMES} or {SETTINGS} can be read ({problem}; found: {self.summary()})")

    def annotation_files(self) -> list[Path]:
        """Return the class names' file, the lists of images and all text files of boxes there are."""
        rows, settings = self.rows(), None if self.dealt else self._settings_file()
        labels = (self._labels(row) for row in rows)
        lists = [] if self.dealt else self._lists
        if not (names := self._named()).is_file():
            raise self._unreadable(names, "there is none")
        named = dict.fromkeys([names, *([settings] if settings else []), *lists])
        return [*named, *(file for file in labels if file.is_file())]

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Read a picture's text file; an empty one means no boxes."""
        if not self.dealt and part_by_folder(row.file) == UNLABELLED:
            return None
        place = self._labels(row)
        if not place.is_file():
            if self.dealt:
                return None
            self.notes.count(_MISSING, 1, row.file)
            return NO_BOXES
        count, rows, numbers = self._count, [], []
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise self.refuse(f"{self.shown(place)} can be read ({error})") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if isinstance(box := _box(line, count), str):
                allowed = f"has class 0..{count - 1} and {CXCYWH} in shares of the sides, 0..1"
                raise self.refuse(f"{self.shown(place)} {allowed}, in line {number} ({box})")
            rows.append(box)
            numbers.append(number)
        table = np.array(rows, np.float64).reshape(-1, 5)
        if not len(table):
            return NO_BOXES
        centre, half = table[:, 1:3] * [width, height], table[:, 3:] * [width, height] / 2
        xyxy = np.concatenate([centre - half, centre + half], axis=1)
        return Boxes(xyxy.astype(np.float32), table[:, 0].astype(np.int64), np.array(numbers, np.int64))

    def where(self, row: Row, number: int) -> str:
        """Return the text file and the line."""
        return f"{self.shown(self._labels(row))}: line {number}"

    def looked_for(self, row: Row) -> str:
        """Return the place of an image's text file."""
        return f"for {self.shown(self._labels(row))}"

    def layout(self, images: Sequence[str], notes: Notes) -> Layout:
        """Return the images of `train`, `val` and `test` in `data.yaml`; without such keys, by their folders."""
        layout, place = Layout(), self._settings_file()
        self._lists: list[Path] = []
        settings = self._settings(place) if place else {}
        if not place or not settings.get("train"):
            layout.by_folders(images)
            return layout
        for part in PARTS:
            given = settings.get(part) or []
            for value in given if isinstance(given, list) else [given]:
                if found := self._listed(str(value), str(settings.get("path") or ""), images):
                    layout.add(part, found)
                    continue
                problem = f"{place.name} has as {part} a folder, or a text file, of images in data.path, unlike {value}"
                if part != TEST:
                    raise self.refuse(f"{problem} (found: {self.summary()})")
                notes.count(f"{part} of {place.name} that is not there", 1, str(value))
        layout.unlabelled_folders(images)
        return layout

    def _listed(self, value: str, base: str, images: Sequence[str]) -> list[str]:
        """Return the images of a folder, or of a text file of their names; of another machine's path the end counts."""
        folder = self.folder()
        ends = [components(value)[i:] for i in range(len(components(value)))]
        for place in (folder / base / value, *(folder.joinpath(*end) for end in ends)):
            if place.suffix == ".txt" and place.is_file():
                self._lists.append(place)
                return self._of_list(place, images)
            inside = self.shown(place)
            if place.is_dir() and (found := [one for one in images if inside == "." or one.startswith(f"{inside}/")]):
                return found
        return []

    def _of_list(self, place: Path, images: Sequence[str]) -> list[str]:
        names, found = Names(images, by_file=True), []
        for number, line in enumerate(self._text(place).splitlines(), 1):
            try:
                image = names.find(line) if line.strip() else ""
            except AmbiguousName as error:
                raise self.refuse(f"{self.shown(place)} tells images apart, but line {number}: {error}") from None
            if image is None:
                problem = f"{self.shown(place)} names images in the folder, but line {number} is {shown([line])}"
                raise self.refuse(f"{problem} (found: {self.summary()})")
            found += [image] if image else []
        return found

    def _labels(self, row: Row) -> Path:
        """Return the text file: in `labels` for the last folder `images` of the path, else beside the image."""
        parts = list(PurePosixPath(row.file).with_suffix(".txt").parts)
        places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
        if places:
            parts[places[-1]] = "labels"
        return present(self.folder().joinpath(*parts))


def _box(line: str, classes: int) -> list[float] | str:
    """Return a line's class and box, of a polygon the box around it; or what is wrong with the line.

    What rounding put below 0 or above 1 is put back.
    """
    try:
        number, *shares = (float(word) for word in line.split())
    except ValueError:
        return f"not numbers: {line.strip()[:40]!r}"
    if number not in range(classes):
        return f"class {number:g}; numbers begin with 0" if number == classes else f"class {number:g}"
    for share in shares:
        if not -_ROUNDING <= share <= 1 + _ROUNDING:
            return f"{share:g}; are these pixels?" if share > 1 and share.is_integer() else f"{share:g}"
    kept = np.clip(shares, 0, 1)
    if len(kept) >= _POLYGON and len(kept) % 2 == 0:
        low, high = kept.reshape(-1, 2).min(axis=0), kept.reshape(-1, 2).max(axis=0)
        kept = np.concatenate([(low + high) / 2, high - low])
    return [number, *kept.tolist()] if len(kept) == _SHARES else f"{len(kept)} numbers after the class"
