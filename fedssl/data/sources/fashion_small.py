"""The shipped data set: 5,000 + 1,000 pictures of Fashion-MNIST (Xiao et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedssl.data.base import Dataset, DataSource, register
from fedssl.data.sources.npz import file_sha256, read_npz

FILE = Path(__file__).with_name("fashion_small.npz")


@register("fashion_small")
@dataclass
class FashionSmall(DataSource):
    """Real pictures of clothes, 28 x 28 grey; the first 500 + 100 of each of 10 classes."""

    flip: ClassVar[bool] = True

    def fingerprint(self) -> str:
        """Return the hash of the shipped file."""
        return file_sha256(str(FILE))

    def read(self) -> Dataset:
        """Decode the shipped file."""
        return read_npz(self, str(FILE), test_share=0.2)
