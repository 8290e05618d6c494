"""Image files of any bit depth as 8-bit images: the same image has the same pixels, whatever its file stores.

Pillow's own `convert` clips what is above 255, so that a 16-bit image turns white and one of floats in 0..1 black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0
_SCALED = ("PNG", "PPM")
"""Formats whose mode I is 0..65535, as Pillow reads them; a TIFF's may be any 16 or 32 bits."""


def eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Return an opened image upright (by its EXIF tag) in mode `L` or `RGB`.

    Raises ValueError for an image whose range nobody knows, and for one with transparent pixels.
    """
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_bytes_of(image, np.asarray(upright))).convert(mode)
    _check_opaque(upright)
    return upright.convert(mode)


def _bytes_of(image: Image.Image, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the pixels (height, width) of a grey image of integers or floats as uint8."""
    if image.mode == "F":
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("floats are read in 0..1")
        return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)
    if image.mode == "I" and image.format not in _SCALED:
        raise ValueError("integers are read in 8 or 16 bits, without a sign")
    tags = getattr(image, "tag_v2", {})
    # Pillow leaves 12-bit samples in 0..4095, and inverts "white is zero" in 8 bits alone.
    top = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    out = np.rint(pixels.astype(np.float64) * (255 / top)).astype(np.uint8)
    return 255 - out if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else out


def _check_opaque(image: Image.Image) -> None:
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise ValueError("it has transparent pixels; put it on a background first")
