"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedssl.data.arrays import build_dataset
from fedssl.data.base import Dataset, DataSource, Samples, register
from fedssl.data.sources.npz import split_off_test


@register("digits")
@dataclass
class Digits(DataSource):
    """1,797 handwritten digits, 8 x 8 grey (scikit-learn `load_digits`), 20 % of them test."""

    flip: ClassVar[bool] = False

    def fingerprint(self) -> str:
        """Return the version of this split; scikit-learn's file does not change."""
        return "load_digits, split 1"

    def read(self) -> Dataset:
        """Decode scikit-learn's copy; grey levels 0..16 become 0..255."""
        from sklearn.datasets import load_digits

        images, y = load_digits(return_X_y=True)
        x = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
        everything = Samples(x, y.astype(np.int64), np.full(len(y), -1, np.int64))
        train, test = split_off_test(everything, 0.2)
        return build_dataset("scikit-learn digits", self, train, test, [str(label) for label in range(10)])
