"""Pictures kept as image files one after another in a .npz: arrays `bytes`, `offsets`, `labels`, `class_names`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.eight_bits import eight_bits

FORMATS = ("WEBP", "PNG")


@dataclass(frozen=True)
class Encoded:
    """The checked arrays of one file; picture i is `raw[offsets[i]:offsets[i + 1]]`."""

    place: Path
    raw: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]

    def decode(self, which: Iterable[int], side: int) -> NDArray[np.uint8]:
        """Return pictures as uint8 (n, side, side, 3). Raises ConfigError on one that is none, or of another size."""
        chosen = list(which)
        out = np.empty((len(chosen), side, side, 3), np.uint8)
        for row, i in enumerate(chosen):
            try:
                out[row] = decode(self.raw[self.offsets[i] : self.offsets[i + 1]].tobytes(), side)
            except ValueError as error:
                raise refuse(self.place, f"a file whose picture {i} is {error}") from None
        return out


def decode(data: bytes, side: int) -> NDArray[np.uint8]:
    """Return a picture as uint8 (side, side, 3). Raises ValueError, which says what it must be."""
    from PIL import Image

    # A damaged picture breaks its decoder in many ways; each must end as one clear line.
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            size = picture.size
            if size == (side, side):
                return np.asarray(eight_bits(picture, "RGB"))
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"a sound {' or '.join(FORMATS)} image ({reason})") from None
    raise ValueError(f"{side} x {side}, not {size[0]} x {size[1]}")


def content_key(place: Path) -> str:
    """Return names, sizes and CRCs of a .npz file's arrays, which lie at its end: cheap, whatever its size."""
    try:
        with zipfile.ZipFile(place) as content:
            return " ".join(f"{item.filename}:{item.file_size}:{item.CRC:08x}" for item in content.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise refuse(place, f"a sound .npz file ({error})") from None


def read_encoded(place: Path, class_names: Sequence[str]) -> Encoded:
    """Read and check one file; nothing is unpickled. Raises ConfigError that names file and array."""
    arrays: dict[str, NDArray[Any]] = {}
    name = "bytes"
    try:
        # Opened here, since numpy leaves a file that is no zip open.
        with place.open("rb") as file, np.load(file, allow_pickle=False) as content:
            for name in ("bytes", "offsets", "labels", "class_names"):
                arrays[name] = np.asarray(content[name])
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise refuse(place, f"a sound .npz file; array `{name}` cannot be read ({reason})") from None
    raw, offsets, labels = arrays["bytes"], arrays["offsets"], arrays["labels"]
    if raw.ndim != 1 or raw.dtype != np.uint8:
        raise refuse(place, f"a file whose array `bytes` is uint8 (n,), not {raw.dtype} {raw.shape}")
    if arrays["class_names"].tolist() != list(class_names):
        raise refuse(place, f"a file whose array `class_names` is {', '.join(class_names)}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise refuse(place, f"a file whose array `labels` is of whole numbers (n,), not {labels.dtype} {labels.shape}")
    wrong = (labels < 0) | (labels >= len(class_names))
    if wrong.any():
        where = int(wrong.argmax())
        highest = len(class_names) - 1
        raise refuse(place, f"a file whose array `labels` is in 0..{highest}, not {labels[where]} (picture {where})")
    _check_offsets(place, offsets, len(labels), len(raw))
    return Encoded(place, raw, offsets.astype(np.int64), labels.astype(np.int64))


def _check_offsets(place: Path, offsets: NDArray[Any], count: int, total: int) -> None:
    if offsets.shape != (count + 1,) or offsets.dtype.kind not in "iu":
        found = f"{offsets.dtype} {offsets.shape}"
        raise refuse(place, f"a file whose array `offsets` is of {count + 1} whole numbers, not {found}")
    if offsets[0] != 0 or offsets[-1] != total or (offsets[1:] <= offsets[:-1]).any():
        raise refuse(place, f"a file whose array `offsets` grows from 0 to {total}, the length of `bytes`")


def refuse(place: Path, allowed: str) -> ConfigError:
    """Return the error on `data.path` for a file in that folder."""
    return ConfigError("data.path", str(place.parent), f"a folder whose {place.name} is {allowed}")
