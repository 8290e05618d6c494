"""Made-up scenes: coloured shapes on textured ground, for trying things out; they need no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.config import option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes, Ints, Picture
from fedssl.data.sources.scenes import Scenes
from fedssl.data.sources.weather import smooth_noise
from fedssl.rng import Rng

_TINTS = np.array([[200.0, 60.0, 50.0], [60.0, 150.0, 70.0], [60.0, 90.0, 200.0]])
"""Mean colour of discs, squares and triangles; the colour of one object is up to 60 away, so the form counts too."""


@register("shapes_synthetic")
@dataclass
class ShapesSynthetic(Scenes):
    """Synthetic: 1 to 3 discs, squares or triangles a picture, on smooth ground with grain.

    The same parties and weather as `roadsign`; pictures 2k and 2k + 1 are one scene, on the same ground.
    """

    classes: ClassVar[tuple[str, ...]] = ("disc", "square", "triangle")

    size: int = option(128, "side of the pictures in pixels", low=32, multiple=32)
    pictures: int = option(180, "pictures that are trained on, the server's among them", low=8)
    test_pictures: int = option(40, "pictures that are scored, each in four weathers", low=1)
    server_share: float = option(1 / 3, "share of the training pictures that is the server's", above=0, below=1)

    def fingerprint(self) -> str:
        """Return what decides the pictures."""
        return f"shapes 1 {(self.pictures, self.test_pictures)} {self.choices()}"

    def read(self) -> Dataset:
        """Draw the pictures. Those of `val` and `test` are different ones."""
        count = self.pictures + 2 * self.test_pictures
        drawn = [self._scene(i) for i in range(count)]
        first = self.pictures + (self.test_pictures if self.evaluate_on == "test" else 0)
        test = np.arange(first, first + self.test_pictures)
        boxes = [boxes for _, boxes in drawn]
        return self.assembled(lambda i: drawn[i][0], boxes, np.arange(count) // 2, np.arange(self.pictures), test)

    def shapes(self) -> Ints:
        """Return height and width of every picture."""
        return np.full((self.pictures + 2 * self.test_pictures, 2), self.size)

    def _scene(self, i: int) -> tuple[Picture, Boxes]:
        ground = Rng(self.seed).numpy("shapes ground", i // 2)
        side = (self.size, self.size)
        light = np.stack([ground.uniform(60, 170) + 60 * (smooth_noise(side, ground) - 0.5) for _ in range(3)], axis=2)
        generator = Rng(self.seed).numpy("shapes objects", i)
        picture = light + generator.normal(0, 8, light.shape)
        found: list[tuple[list[int], int]] = []
        for _ in range(int(generator.integers(1, 4))):
            kind, width = int(generator.integers(3)), int(generator.integers(self.size // 8, self.size // 3 + 1))
            left, top = (int(generator.integers(0, self.size - width + 1)) for _ in range(2))
            box = [left, top, left + width, top + width]
            if any(_overlap(box, other) for other, _ in found):
                continue
            colour = _TINTS[kind] + generator.uniform(-60, 60, 3)
            picture[top : top + width, left : left + width][_form(kind, width)] = colour
            found.append((box, kind))
        xyxy = np.array([box for box, _ in found], np.float32)
        return np.rint(np.clip(picture, 0, 255)).astype(np.uint8), Boxes(xyxy, np.array([kind for _, kind in found]))


def _form(kind: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels (width, width) of a form; each touches all four sides of its box."""
    middle = (np.arange(width) + 0.5) / width * 2 - 1
    down, right = middle[:, None], middle[None, :]
    if kind == 0:
        return down**2 + right**2 <= 1
    if kind == 1:
        return np.ones((width, width), bool)
    return np.abs(right) <= np.maximum((down + 1) / 2, 1 / width)


def _overlap(one: list[int], other: list[int]) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])
