"""One street in another weather: overcast, rain and snow drawn onto a picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedssl.rng import Rng

WEATHERS = ("cloudy", "overcast", "rainy", "snowy")
"""Domains in order; cloudy is the picture as it was taken."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def render(picture: NDArray[np.uint8], weather: int, severity: float, *, seed: int, image: int) -> NDArray[np.uint8]:
    """Return a picture uint8 (height, width, 3) in one of `WEATHERS`, at severity 0 (as it is) to 5.

    A pure function of its arguments; `image` is the picture's number. Boxes stay as they are.
    """
    if weather == 0 or severity == 0:
        return picture
    generator = Rng(seed).at(client=image).numpy(f"weather {WEATHERS[weather]} {severity:g}")
    changed = _CHANGES[weather](picture / 255, severity, generator)
    return np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)


def overcast(x: Floats, severity: float, generator: np.random.Generator) -> Floats:
    """Flatten contrast, darken, and lay a fog of light grey over it, thicker here than there; x in 0..1."""
    fog = 0.05 * severity * (0.7 + 0.6 * smooth_noise(x.shape[:2], generator))[..., None]
    flat = 0.5 + (1 - 0.08 * severity) * (x - 0.5) - 0.03 * severity
    out: Floats = (1 - fog) * flat + 0.7 * fog
    return out


def rainy(x: Floats, severity: float, generator: np.random.Generator) -> Floats:
    """Darken, blur, and draw streaks of rain, all of one slant of 75 to 105 degrees."""
    streaks = _streaks(x.shape[:2], 0.002 * severity, generator)
    blurred = gaussian(x, 0.2 * severity)
    return np.clip((1 - 0.05 * severity) * blurred + 0.5 * streaks[..., None], 0, 1)


def snowy(x: Floats, severity: float, generator: np.random.Generator) -> Floats:
    """Whiten, and let flakes of radius 1 to 3 pixels fall in front."""
    flakes = gaussian(_flakes(x.shape[:2], 0.0012 * severity, generator).astype(np.float64), 0.7)
    return np.maximum((1 - 0.04 * severity) * x + 0.04 * severity, 0.95 * flakes[..., None])


def smooth_noise(shape: tuple[int, int], generator: np.random.Generator) -> Floats:
    """Return noise in 0..1, exactly from 0 to 1, that changes over about a quarter of the picture."""
    coarse = generator.random((6, 6))
    rows, columns = (np.linspace(0, 5, side) for side in shape)
    noise = _between(_between(coarse, rows).T, columns).T
    out: Floats = (noise - noise.min()) / max(float(np.ptp(noise)), 1e-9)
    return out


def gaussian(x: Floats, sigma: float) -> Floats:
    """Blur rows and columns by a Gaussian, reflecting at the border; x (height, width) or (height, width, 3)."""
    from scipy import ndimage

    blurred: Floats = ndimage.gaussian_filter(x, (sigma, sigma, 0)[: x.ndim])
    return blurred


def _between(values: Floats, position: Floats) -> Floats:
    """Interpolate along the first axis by a cosine."""
    low = np.minimum(position.astype(np.int64), len(values) - 2)
    share = (0.5 - 0.5 * np.cos(np.pi * (position - low)))[:, None]
    out: Floats = values[low] * (1 - share) + values[low + 1] * share
    return out


def _streaks(shape: tuple[int, int], density: float, generator: np.random.Generator) -> Mask:
    """Return the pixels of lines of 0.06 sides; they begin above the picture too."""
    length = max(1, round(0.06 * max(shape)))
    angle = np.deg2rad(generator.uniform(75, 105))
    points = generator.random((shape[0] + length, shape[1] + 2 * length)) < density
    out = np.zeros(shape, bool)
    for step in range(length):
        down, right = round(step * np.sin(angle)), round(step * np.cos(angle))
        out |= points[length - down :, length - right :][: shape[0], : shape[1]]
    return out


def _flakes(shape: tuple[int, int], density: float, generator: np.random.Generator) -> Mask:
    from scipy import ndimage

    points = generator.random(shape) < density
    radius = generator.integers(1, 4, shape)
    out = np.zeros(shape, bool)
    for one in (1, 2, 3):
        across = np.arange(-one, one + 1)
        disc = across[:, None] ** 2 + across**2 <= one**2
        out |= ndimage.binary_dilation(points & (radius == one), disc)
    return out


_CHANGES: dict[int, Callable[[Floats, float, np.random.Generator], Floats]] = {1: overcast, 2: rainy, 3: snowy}
