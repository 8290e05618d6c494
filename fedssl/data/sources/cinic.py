"""CINIC-10 (Darlow et al. 2018), from the folders that its archive unpacks to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedssl.config import ConfigError, option
from fedssl.data.arrays import build_dataset
from fedssl.data.base import Dataset, DataSource, Samples, register
from fedssl.data.sources.cifar import CIFAR10_NAMES, SIDE
from fedssl.data.sources.encoded import decode
from fedssl.files import is_hidden

SPLITS = ("train", "test")


@register("cinic10")
@dataclass
class Cinic10(DataSource):
    """32 x 32 colour photographs of CIFAR-10's classes, 90,000 + 90,000; the `valid` split is not used."""

    path: str = option("", "the folder with `train` and `test`", path=True)
    per_class: int = option(0, "training pictures a class, the first by file name; 0 = all", low=0)

    def fingerprint(self) -> str:
        """Return a hash of all file names; in CINIC-10 they are unique."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for name, files in self._files(split).items():
                digest.update("\n".join([f"{split}/{name}", *(file.name for file in files)]).encode())
        return f"{digest.hexdigest()} per_class={self.per_class}"

    def read(self) -> Dataset:
        """Decode the pictures, about half a minute for each split on one core."""
        train, test = self._read("train", self.per_class), self._read("test", 0)
        return build_dataset(self.path, self, train, test, CIFAR10_NAMES)

    def _read(self, split: str, per_class: int) -> Samples:
        files = [found[: per_class or None] for found in self._files(split).values()]
        x = np.empty((sum(map(len, files)), SIDE, SIDE, 3), np.uint8)
        for row, file in enumerate(file for found in files for file in found):
            try:
                x[row] = decode(file.read_bytes(), SIDE)
            except (OSError, ValueError) as error:
                place = file.relative_to(self._folder())
                raise ConfigError("data.path", self.path, f"a folder whose {place} is {error}") from None
        y = np.repeat(np.arange(len(files)), [len(found) for found in files])
        return Samples(x, y, np.full(len(y), -1, np.int64))

    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _files(self, split: str) -> dict[str, list[Path]]:
        """Return the files of each class, by name. Raises ConfigError if a class has none."""
        folder = self._folder() / split
        found = {
            name: sorted(file for file in (folder / name).glob("*.png") if not is_hidden(file.relative_to(folder)))
            for name in CIFAR10_NAMES
        }
        for name, files in found.items():
            if not self.path or not files:
                allowed = f"a folder with `train/CLASS/*.png` and `test/CLASS/*.png`; {split}/{name} has no picture"
                raise ConfigError("data.path", self.path, allowed)
        return found
