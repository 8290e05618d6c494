"""Road Sign Detection: 875 street photographs, from a file that the user has."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.base import Dataset, register
from fedssl.data.boxes import Boxes, Ints, Picture
from fedssl.data.eight_bits import eight_bits
from fedssl.data.sources.encoded import FORMATS, content_key
from fedssl.data.sources.npz import file_sha256
from fedssl.data.sources.scenes import Scenes

FILE = "roadsign.npz"
_ARRAYS = ("bytes", "offsets", "sizes", "boxes", "box_labels", "box_image", "class_names", "split", "group")
TRAIN, VALIDATION, TEST = 0, 1, 2


@register("roadsign")
@dataclass
class RoadSign(Scenes):
    """Street photographs with traffic lights, stop signs, speed limits and crosswalks; 613 + 88 + 174 pictures.

    They are dealt to a server (cloudy) and clients whose weather is drawn onto them.
    """

    classes: ClassVar[tuple[str, ...]] = ("trafficlight", "stop", "speedlimit", "crosswalk")

    path: str = option("", "the file roadsign.npz, or the folder it lies in", path=True)

    def fingerprint(self) -> str:
        """Return the checksums of the file's arrays and what else decides the samples."""
        place = self._place()
        if not place.is_file():
            file_sha256(str(place))
        return f"{content_key(place)} {self.choices()}"

    def read(self) -> Dataset:
        """Decode, check and render the photographs."""
        arrays = self._arrays()
        bounds = np.searchsorted(arrays["box_image"], np.arange(len(arrays["sizes"]) + 1))
        boxes = [
            Boxes(arrays["boxes"][a:b].astype(np.float32), arrays["box_labels"][a:b].astype(np.int64))
            for a, b in itertools.pairwise(bounds)
        ]
        self._sizes = arrays["sizes"]
        scored = TEST if self.evaluate_on == "test" else VALIDATION
        train, test = (np.flatnonzero(arrays["split"] == part) for part in (TRAIN, scored))
        if not len(train) or not len(test):
            raise self._refuse(f"`split` has pictures of parts {TRAIN} and {scored}")
        return self.assembled(lambda i: self._picture(arrays, i), boxes, arrays["group"], train, test)

    def shapes(self) -> Ints:
        """Return height and width of every photograph."""
        return self._sizes

    def _place(self) -> Path:
        if not self.path:
            raise ConfigError("data.path", self.path, f"the file {FILE}, or its folder")
        place = Path(self.path).expanduser()
        return place / FILE if place.is_dir() else place

    def _refuse(self, allowed: str) -> ConfigError:
        return ConfigError("data.path", str(self._place()), f"a file whose {allowed}")

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        name = _ARRAYS[0]
        # A damaged zip breaks numpy's reader in many ways; each must end as one clear line.
        try:
            with self._place().open("rb") as file, np.load(file, allow_pickle=False) as content:
                for name in _ARRAYS:
                    arrays[name] = np.asarray(content[name])
        except Exception as error:
            reason = " ".join(str(error).split())[:80]
            raise self._refuse(f"array `{name}` can be read ({reason})") from None
        if tuple(arrays["class_names"].tolist()) != self.classes:
            raise self._refuse(f"array `class_names` is {', '.join(self.classes)}")
        count, num_boxes = len(arrays["sizes"]), len(arrays["boxes"])
        shapes = {"offsets": (count + 1,), "sizes": (count, 2), "split": (count,), "group": (count,)}
        shapes |= {"boxes": (num_boxes, 4), "box_labels": (num_boxes,), "box_image": (num_boxes,)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise self._refuse(f"array `{name}` is of shape {shape}, not {arrays[name].shape}")
        self._check_boxes(arrays, count)
        return arrays

    def _check_boxes(self, arrays: dict[str, NDArray[Any]], count: int) -> None:
        boxes, image, label = arrays["boxes"], arrays["box_image"], arrays["box_labels"]
        if len(image) and ((np.diff(image) < 0).any() or image[0] < 0 or image[-1] >= count):
            raise self._refuse(f"array `box_image` never decreases and is in 0..{count - 1}")
        if ((label < 0) | (label >= len(self.classes))).any():
            raise self._refuse(f"array `box_labels` is in 0..{len(self.classes) - 1}")
        limit = arrays["sizes"][image][:, ::-1]
        sound = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= limit).all(1)
        if not sound.all():
            raise self._refuse(f"array `boxes` is x1, y1, x2, y2 inside the picture (row {int((~sound).argmax())})")

    def _picture(self, arrays: dict[str, NDArray[Any]], i: int) -> Picture:
        from PIL import Image

        data = arrays["bytes"][arrays["offsets"][i] : arrays["offsets"][i + 1]].tobytes()
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                out = np.asarray(eight_bits(picture, "RGB"))
        except Exception as error:
            reason = " ".join(str(error).split())[:80]
            raise self._refuse(f"picture {i} is a sound {' or '.join(FORMATS)} image ({reason})") from None
        if out.shape[:2] != tuple(arrays["sizes"][i]):
            raise self._refuse(f"picture {i} is of the size that `sizes` says")
        return out
