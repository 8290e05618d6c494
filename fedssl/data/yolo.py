"""A user's pictures with one text file of boxes each, as YOLO trainers read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fedssl.data.base import register
from fedssl.data.boxes import NO_BOXES, Boxes
from fedssl.data.pictures import Row, Tabled

NAMES, SETTINGS = "classes.txt", "data.yaml"


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
            text = place.read_text(encoding="utf-8")
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
        count = len(self.names())
        try:
            rows = [[float(word) for word in line.split()] for line in place.read_text(encoding="utf-8").splitlines()]
            table = np.array([one for one in rows if one], np.float64).reshape(-1, 5)
            sound = np.isfinite(table).all() and (table[:, 0] % 1 == 0).all() and (table >= 0).all()
        except ValueError:
            sound = False
        if not sound or (table[:, 0] >= count).any():
            allowed = f"is lines of class 0..{count - 1}, centre x, centre y, width, height"
            raise self.refuse(f"{place.relative_to(self.folder())} {allowed}")
        for number, line in enumerate(rows, 1):
            if max(line[1:], default=0) > 1:
                allowed = f"has shares of the picture's sides, 0..1, in line {number}"
                raise self.refuse(f"{place.relative_to(self.folder())} {allowed}")
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
