"""Checks of annotated boxes: what cannot be is refused, what is left out is counted for one warning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.boxes import NO_BOXES, Boxes, Floats, Ints, Letterbox

XYXY = "x1, y1, x2, y2"
XYWH = "left, top, width, height"
CXCYWH = "centre x, centre y, width, height"
CROWD = "marked as crowd, ignored or difficult"
_NO_AREA, _OUTSIDE, _TWICE = "without a positive width and height", "outside the image", "annotated twice"
_CUT = "boxes cut because they reach beyond their image"
EMPTIED = "images whose boxes are all left out, which count as images without objects"
_SLACK, _SHARE = 2.0, 0.01
"""Pixels, and share of the side, that a box may reach beyond its image unnoticed: rounding, or counting from 1."""
_FEW, _SOME, _MOST, _ALL = 3, 0.1, 0.5, 0.98
_EARLY = 300

Mask = NDArray[np.bool_]


class Notes:
    """What a user should know of data that were read: numbers by reason, each with its first case."""

    def __init__(self) -> None:
        self._dropped: dict[str, tuple[int, str]] = {}
        self._counted: dict[str, tuple[int, str]] = {}

    def drop(self, reason: str, count: int, first: str) -> None:
        """Count boxes that are left out."""
        _add(self._dropped, reason, count, first)

    def count(self, text: str, count: int, first: str) -> None:
        """Count something else."""
        _add(self._counted, text, count, first)

    def lines(self) -> tuple[str, ...]:
        """Return the warning, if there is anything to say."""
        parts = [f"{text}: {count} (first: {first})" for text, (count, first) in self._counted.items()]
        if self._dropped:
            total = sum(count for count, _ in self._dropped.values())
            kinds = [f"{count} {reason} (first: {first})" for reason, (count, first) in self._dropped.items()]
            parts.insert(0, f"boxes left out: {total}, of which {', '.join(kinds)}")
        # Names of files may hold line breaks, and bytes that are no text.
        text = " ".join("; ".join(parts).encode(errors="backslashreplace").decode().split())
        return (text,) if text else ()


def _add(table: dict[str, tuple[int, str]], reason: str, count: int, first: str) -> None:
    if count:
        before, earliest = table.get(reason, (0, first))
        table[reason] = (before + count, earliest)


class BoxCheck:
    """Checks the boxes of one part of a data set, image by image, then all together.

    `reading` is what the format's four numbers mean. `refuse` makes the error, `notes` counts what is left out.
    """

    def __init__(self, reading: str, refuse: Callable[[str], ConfigError], notes: Notes) -> None:
        self._reading, self._refuse, self._notes = reading, refuse, notes
        self._xyxy: list[Floats] = []
        self._sides: list[NDArray[np.float64]] = []
        self._count, self._first, self._looked = 0, "", False

    def fitted(self, boxes: Boxes, number: Ints, frame: Letterbox, where: Callable[[int], str]) -> tuple[Boxes, int]:
        """Return the sound boxes of the classes that count, renumbered and put into the image's frame.

        The second value is how many boxes of these classes there were. `where` names box i for messages. Raises
        ConfigError for numbers that are none.
        """
        if not len(boxes.classes):
            return NO_BOXES, 0
        finite = np.isfinite(boxes.xyxy).all(axis=1)
        if not finite.all():
            raise self._refuse(f"boxes are of finite numbers, which {where(int(finite.argmin()))} is not")
        self._remember(boxes.xyxy, frame, where)
        sides = np.array([frame.width, frame.height] * 2)
        classes = number[boxes.classes]
        counts: Mask = np.asarray(classes >= 0)
        xyxy: Floats = np.clip(boxes.xyxy, 0, sides).astype(np.float32)
        area, inside = _area(boxes.xyxy), _area(xyxy)
        once = _first_of_equal(boxes.xyxy, classes)
        sound: Mask = np.asarray(counts & inside & area & once)
        for reason, wrong in ((_NO_AREA, ~area), (_OUTSIDE, area & ~inside), (_TWICE, inside & area & ~once)):
            self._notes.drop(reason, int((wrong & counts).sum()), where(int((wrong & counts).argmax())))
        beyond = sound & ~_within(boxes.xyxy, sides)
        self._notes.count(_CUT, int(beyond.sum()), where(int(beyond.argmax())))
        return Boxes(frame.boxes(xyxy[sound]), classes[sound]), int(counts.sum())

    def finish(self) -> None:
        """Check that boxes are what the format says. Raises ConfigError with what they look like instead."""
        if not self._xyxy:
            return
        xyxy, sides = np.concatenate(self._xyxy).astype(np.float64), np.concatenate(self._sides)
        if looks := _looks_like(xyxy, sides, self._reading):
            wrong = int((~_fits(xyxy, sides)).sum())
            first = f"{self._first} is the first of {len(xyxy)}"
            beyond = f"; {wrong} have no area or reach beyond their image" if wrong else ""
            raise self._refuse(f"boxes are {self._reading} of objects in their image: {looks} ({first}{beyond})")

    def _remember(self, xyxy: Floats, frame: Letterbox, where: Callable[[int], str]) -> None:
        self._first = self._first or where(0)
        self._xyxy.append(xyxy)
        self._sides.append(np.tile(np.array([frame.width, frame.height] * 2, np.float64), (len(xyxy), 1)))
        self._count += len(xyxy)
        if self._count >= _EARLY and not self._looked:
            self._looked = True
            self.finish()


def _area(xyxy: NDArray[np.floating]) -> Mask:
    return np.asarray((xyxy[:, 2:] > xyxy[:, :2]).all(axis=1))


def _within(xyxy: NDArray[np.floating], sides: NDArray[np.floating]) -> Mask:
    slack = np.maximum(_SLACK, _SHARE * sides)
    return np.asarray(((xyxy >= -slack) & (xyxy <= sides + slack)).all(axis=1))


def _fits(xyxy: NDArray[np.floating], sides: NDArray[np.floating]) -> Mask:
    return _area(xyxy) & _within(xyxy, sides)


def _first_of_equal(xyxy: Floats, classes: Ints) -> Mask:
    """Mark each box but those that repeat an earlier one of the same class."""
    _, first = np.unique(np.column_stack([xyxy, classes]), axis=0, return_index=True)
    mask = np.zeros(len(classes), bool)
    mask[first] = True
    return mask


def _looks_like(xyxy: NDArray[np.float64], sides: NDArray[np.float64], reading: str) -> str:
    """Say what boxes look like that cannot be meant as they were read; empty if they are as they should be."""
    raw = _numbers(xyxy, reading)
    if reading != CXCYWH and ((raw >= 0) & (raw <= 1)).all() and (raw % 1 > 0).any():
        return "they look like shares of the sides, 0..1, and must be pixels"
    wrong = ~_fits(xyxy, sides)
    if wrong.sum() < _FEW or wrong.mean() <= _SOME:
        return ""
    others = [other for other in (XYXY, XYWH, CXCYWH) if other != reading]
    fitting = [other for other in others if _fits(_corners(raw, other), sides).mean() >= _ALL]
    if fitting:
        return f"they look like {', or '.join(fitting)}"
    return "most are not" if wrong.mean() > _MOST else ""


def _numbers(xyxy: NDArray[np.float64], reading: str) -> NDArray[np.float64]:
    """Return the numbers that boxes were written with."""
    low, high = xyxy[:, :2], xyxy[:, 2:]
    if reading == XYXY:
        return xyxy
    return np.concatenate([low if reading == XYWH else (low + high) / 2, high - low], axis=1)


def _corners(raw: NDArray[np.float64], reading: str) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 of numbers so read."""
    first, second = raw[:, :2], raw[:, 2:]
    if reading == XYXY:
        return raw
    low = first if reading == XYWH else first - second / 2
    return np.concatenate([low, low + second], axis=1)
