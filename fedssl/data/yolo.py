"""A user's pictures with one text file of boxes each, as YOLO trainers read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fedssl.data.base import register
from fedssl.data.boxes import NO_BOXES, Boxes
from fedssl.data.pictures import Row, Tabled

NAMES, SETTINGS = "classes.txt", "data.yaml"
_ROUNDING = 1e-3


@register("yolo")
@dataclass
class Yolo(Tabled):
    """Pictures in `images/`, boxes in `labels/` under the same name, class names in `classes.txt` or `data.yaml`.

    A line of a text file is class, centre x, centre y, width, height; the four are shares of the picture's sides.
    """

    def names(self) -> tuple[str, ...]:
        """Read the class names, one a line, or `names` of the YAML file, a list or a map of numbers from 0 on."""
        import yaml

        place = self._named()
        try:
            text = place.read_text(encoding="utf-8-sig")
            content = text.splitlines() if place.name == NAMES else yaml.safe_load(text)["names"]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            raise self.refuse(f"{place.name} can be read ({' '.join(str(error).split())[:80]})") from None
        if isinstance(content, dict):
            content = [content.get(number) for number in range(len(content))]
        names = content if isinstance(content, list) else []
        found = tuple(str(name).strip() for name in names if place.name != NAMES or name.strip())
        if not found or None in names or len(set(found)) != len(found):
            raise self.refuse(
                f"{place.name} has different names, {'one a line' if place.name == NAMES else 'from 0 on'}"
            )
        return found

    def _named(self) -> Path:
        """Give the file of the class names."""
        listed, settings = self.folder() / NAMES, self.folder() / SETTINGS
        return settings if settings.is_file() and not listed.is_file() else listed

    def annotation_files(self) -> list[Path]:
        """Give the class names' file and all text files of boxes there are."""
        labels = (self._labels(row) for row in self.rows())
        return [self._named(), *(file for file in labels if file.is_file())]

    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Read a picture's text file; an empty one means no boxes."""
        place = self._labels(row)
        if not place.is_file():
            return None
        count, rows = len(self.names()), []
        try:
            lines = place.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise self.refuse(f"{place.relative_to(self.folder())} can be read ({error})") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if (box := _box(line, count)) is None:
                allowed = f"has class 0..{count - 1}, centre x, centre y, width, height, shares of the sides 0..1"
                raise self.refuse(f"{place.relative_to(self.folder())} {allowed}, in line {number}")
            rows.append(box)
        table = np.array(rows, np.float64).reshape(-1, 5)
        if not len(table):
            return NO_BOXES
        centre, half = table[:, 1:3] * [width, height], table[:, 3:] * [width, height] / 2
        xyxy = np.concatenate([centre - half, centre + half], axis=1)
        return Boxes(xyxy.astype(np.float32), table[:, 0].astype(np.int64))

    def _labels(self, row: Row) -> Path:
        """Give the text file: in `labels` for the last folder `images` of the path; without one, beside the picture."""
        parts = list(PurePosixPath(row.file).with_suffix(".txt").parts)
        places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
        if places:
            parts[places[-1]] = "labels"
        return self.folder().joinpath(*parts)


def _box(line: str, classes: int) -> list[float] | None:
    """Give a line's class and four shares; None if it is no such line. What rounding put above 1 is 1."""
    try:
        number, *shares = (float(word) for word in line.split())
    except ValueError:
        return None
    sound = number in range(classes) and len(shares) == 4 and all(0 <= share <= 1 + _ROUNDING for share in shares)
    return [number, *(min(share, 1.0) for share in shares)] if sound else None
