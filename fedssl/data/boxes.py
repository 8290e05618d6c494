"""Pictures of scenes with boxes: letterboxing, packing, and the class that stands for a picture."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedssl.config import ConfigError
from fedssl.data.base import Ints as Ints
from fedssl.data.base import Samples
from fedssl.data.cache import cache_directory

GREY = 114
"""Value of the bars beside a letterboxed picture, and of what lies outside one."""
_IN_MEMORY = 1 << 30

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Boxes:
    """The boxes of one picture: `xyxy` float32 (k, 4) in its pixels, `classes` int64 (k,).

    `number` is what messages call them by: an annotation's id, a line or an object; empty if nothing does.
    """

    xyxy: Floats
    classes: Ints
    number: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def pixels(xyxy: ArrayLike) -> Floats:
    """Return boxes as float32; numbers that are too large for it become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(xyxy, np.float64).astype(np.float32)


NO_BOXES = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Letterbox:
    """How a picture of `height` x `width` is fitted into a square: scaled, then moved by (left, top) pixels."""

    height: int
    width: int
    size: int

    @property
    def scale(self) -> float:
        """Return stored pixels a pixel of the original."""
        return self.size / max(self.height, self.width)

    @property
    def inner(self) -> tuple[int, int]:
        """Return height and width of the picture inside the square."""
        height, width = (max(1, round(side * self.scale)) for side in (self.height, self.width))
        return height, width

    @property
    def corner(self) -> tuple[int, int]:
        """Give (top, left) of the picture inside the square."""
        height, width = self.inner
        return (self.size - height) // 2, (self.size - width) // 2

    def resized(self, picture: Picture) -> Picture:
        """Scale a picture (height, width, 3) to `inner`, bilinear over all the pixels that a new one covers."""
        from PIL import Image

        if picture.shape[:2] == self.inner:
            return picture
        inner = (self.inner[1], self.inner[0])
        return np.asarray(Image.fromarray(picture).resize(inner, Image.Resampling.BILINEAR))

    def framed(self, resized: Picture) -> Picture:
        """Put a resized picture into the middle of a grey square (size, size, 3)."""
        out = np.full((self.size, self.size, 3), GREY, np.uint8)
        (height, width), (top, left) = self.inner, self.corner
        out[top : top + height, left : left + width] = resized
        return out

    def boxes(self, boxes: Floats) -> Floats:
        """Map boxes of the original into the square."""
        height, width = self.inner
        top, left = self.corner
        scale = np.array([width / self.width, height / self.height] * 2, np.float64)
        moved: Floats = (boxes * scale + np.array([left, top] * 2)).astype(np.float32)
        return moved


def rarest_class(boxes: Sequence[Boxes], num_classes: int) -> Ints:
    """Return each picture's class that is in the fewest pictures (n,), the lower of two; -1 without boxes."""
    found = [np.unique(one.classes) for one in boxes]
    frequency = np.bincount(np.concatenate([*found, np.zeros(0, np.int64)]), minlength=num_classes)
    return np.array([one[frequency[one].argmin()] if len(one) else -1 for one in found], np.int64)


def pack(
    x: Picture,
    boxes: Sequence[Boxes],
    y: Ints,
    group: Ints,
    domain: Ints,
    *,
    annotated: NDArray[np.bool_] | None = None,
) -> Samples:
    """Return samples of letterboxed pictures x (n, size, size, 3) and their boxes; None = all are annotated."""
    counts = [len(one.classes) for one in boxes]
    return Samples(
        x=x,
        y=y,
        group=group,
        boxes=np.concatenate([one.xyxy for one in boxes] or [NO_BOXES.xyxy]).astype(np.float32),
        box_class=np.concatenate([one.classes for one in boxes] or [NO_BOXES.classes]).astype(np.int64),
        box_offsets=np.cumsum([0, *counts], dtype=np.int64),
        domain=domain,
        annotated=np.ones(len(x), bool) if annotated is None else annotated,
    )


def room_for(count: int, size: int) -> Picture:
    """Return uint8 (count, size, size, 3) to write into; from 1 GB on in a temporary file in the cache's folder.

    Raises ConfigError if there is no room for it.
    """
    shape = (count, size, size, 3)
    if count * size * size * 3 < _IN_MEMORY:
        return np.empty(shape, np.uint8)
    folder = cache_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The file has no name and is gone with the array.
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                # Without its blocks a full disk would end the process while the array is written.
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        allowed = f"a folder with room for {math.prod(shape) / 1e9:.0f} GB of pictures, twice ({error.strerror})"
        raise ConfigError("FEDSSL_CACHE", str(folder), allowed) from None
