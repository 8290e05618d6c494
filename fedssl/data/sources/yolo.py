"""A user's pictures with one text file of boxes each, as YOLO trainers read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fedssl.data.base import Dataset, register
from fedssl.data.boxes import NO_BOXES, Boxes
from fedssl.data.sources.pictures import Row, Tabled

NAMES, SETTINGS = "classes.txt", "data.yaml"
_ROUNDING = 1e-3
_SHARES, _POLYGON = 4, 6
"""Numbers of a box, and the fewest of a polygon, three points."""


@register("yolo")
@dataclass
class Yolo(Tabled):
    """Pictures in `images/`, boxes in `labels/` under the same name, class names in `classes.txt` or `data.yaml`.

    A line of a text file is class, centre x, centre y, width, height, or class and the x and y of a polygon's corners;
    all are shares of the picture's sides.
    """

    def read(self) -> Dataset:
        """Decode and check everything."""
        self._count = len(self.names())
        return super().read()

    def names(self) -> tuple[str, ...]:
        """Read the class names, one a line, or `names` of the YAML file, a list or a map of numbers from 0 on."""
        import yaml

        place = self._named()
        try:
            text = place.read_text(encoding="utf-8-sig")
            if place.name == NAMES:
                names = [line for line in text.splitlines() if line.strip()]
            else:
                content = yaml.safe_load(text)["names"]
                if isinstance(content, dict):
                    held = {int(number): name for number, name in content.items()}
                    content = [held.get(number, "") for number in range(len(held))]
                names = content if isinstance(content, list) else []
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:80]
            raise self.refuse(f"{NAMES} or {SETTINGS} can be read ({place.name}: {reason})") from None
        found = tuple(str(name).strip() for name in names)
        if not all(found) or not found or len(set(found)) != len(found):
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
        count, rows = self._count, []
        try:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise self.refuse(f"{self.shown(place)} can be read ({error})") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if (box := _box(line, count)) is None:
                allowed = f"has class 0..{count - 1} and centre x, centre y, width, height in shares of the sides, 0..1"
                raise self.refuse(f"{self.shown(place)} {allowed}, in line {number}")
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
    """Give a line's class and box, of a polygon the box around it; None if it is no such line.

    What rounding put below 0 or above 1 is put back.
    """
    try:
        number, *shares = (float(word) for word in line.split())
    except ValueError:
        return None
    if number not in range(classes) or not all(-_ROUNDING <= share <= 1 + _ROUNDING for share in shares):
        return None
    kept = np.clip(shares, 0, 1)
    if len(kept) >= _POLYGON and len(kept) % 2 == 0:
        low, high = kept.reshape(-1, 2).min(axis=0), kept.reshape(-1, 2).max(axis=0)
        kept = np.concatenate([(low + high) / 2, high - low])
    return [number, *kept.tolist()] if len(kept) == _SHARES else None
