"""Readers of images of any kind: an image file, a folder of them, or an .npz."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.eight_bits import eight_bits
from fedssl.files import expanded, is_hidden
from fedssl.predict.model_file import Shape

if TYPE_CHECKING:
    from PIL import Image

_ARRAYS = ("x", "images", "x_test", "test_images")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read_images(path: str | Path, shape: Shape) -> tuple[list[str], NDArray[np.uint8]]:
    """Return names and uint8 (n, height, width, channels) images of an .npz, an image or a folder.

    An .npz holds `x`, `images`, `x_test` or `test_images`; its rows are named by number. Image
    files are converted and resized to `shape`; folders are read to all depths, in path order.
    Raises ConfigError naming the file.
    """
    path = expanded(path)
    if path.suffix == ".npz" and path.is_file():
        images = check_images("data", read_npz(path), shape)
        return [str(row) for row in range(len(images))], images
    names, files = zip(*image_files(path), strict=True)
    return list(names), np.stack([_read_image(file, shape) for file in files])


def image_files(path: Path) -> list[tuple[str, Path]]:
    """Return names and paths of an image file, or of those in a folder to all depths, sorted. Raises ConfigError.

    Hidden files and folders are passed over.
    """
    if path.is_file():
        return [(path.name, path)]
    found = sorted((file.relative_to(path), file) for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
    files = [(name.as_posix(), file) for name, file in found if not is_hidden(name) and file.is_file()]
    if not files:
        raise ConfigError("data", str(path), "an .npz, an image file, or a folder that holds images")
    return files


def check_images(name: str, images: NDArray[Any], shape: Shape) -> NDArray[np.uint8]:
    """Return the images as contiguous, writable uint8 (n, *shape). Raises ConfigError on `name`."""
    images = np.asarray(images)
    if images.ndim == 3 and shape[2] == 1:
        images = images[..., None]
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        given = f"{images.dtype} {'x'.join(map(str, images.shape))}"
        raise ConfigError(name, given, f"uint8 nx{'x'.join(map(str, shape))}, as the model was trained")
    return np.require(images, requirements=["C", "W"])


def read_npz(path: Path) -> NDArray[Any]:
    """Return the images of an .npz: the first of `x`, `images`, `x_test`, `test_images`. Raises ConfigError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            name = next((name for name in _ARRAYS if name in arrays), None)
            if name is not None:
                return np.asarray(arrays[name])
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, RuntimeError) as error:
        raise ConfigError("data", str(path), f"a readable .npz ({error})") from None
    raise ConfigError("data", str(path), f"an .npz with an array named {', '.join(_ARRAYS)}")


def open_image(path: Path, mode: str) -> Image.Image:
    """Return an image file's image, upright, in mode `L` or `RGB`. Raises ConfigError naming the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return eight_bits(image, mode)
    except Exception as error:  # a damaged image breaks its decoder in many ways
        reason = " ".join(str(error).split())[:120]
        raise ConfigError("data", str(path), f"a readable image ({reason})") from None


def _read_image(path: Path, shape: Shape) -> NDArray[np.uint8]:
    from PIL import Image

    height, width, channels = shape
    picture = open_image(path, "L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(shape)
