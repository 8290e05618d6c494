"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from files that the user has or lets torchvision fetch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.arrays import build_dataset, first_of_each
from fedssl.data.base import Dataset, DataSource, Samples, register
from fedssl.data.sources.encoded import Encoded, content_key, read_encoded

SIDE = 32
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"cifar10_train_{part}of5.npz" for part in range(1, 6))
TEST_FILE = "cifar10_test.npz"


@dataclass
class Cifar(DataSource):
    """32 x 32 colour photographs in torchvision's folder layout."""

    archive: ClassVar[str] = ""
    layout: ClassVar[str] = ""

    path: str = option("", "the folder with the files", path=True)
    per_class: int = option(0, "training pictures a class, the first in the data's order; 0 = all", low=0)
    download: bool = option(False, "let torchvision fetch what is missing into `data.path`")

    def fingerprint(self) -> str:
        """Return what decides the samples; torchvision reads no file but those of one MD5."""
        if not self.download and not (self.folder() / self.layout).is_dir():
            raise ConfigError("data.path", self.path, self.allowed())
        return f"torchvision per_class={self.per_class}"

    def read(self) -> Dataset:
        """Read the pictures through torchvision."""
        train, test = self._torchvision(train=True), self._torchvision(train=False)
        y = np.asarray(train.targets, np.int64)
        keep = first_of_each(y, self.per_class)
        names = tuple(str(name) for name in train.classes)
        kept, rest = _samples(train.data[keep], y[keep]), _samples(test.data, np.asarray(test.targets, np.int64))
        return build_dataset(self.path, self, kept, rest, names)

    def folder(self) -> Path:
        """Return the folder. Raises ConfigError for no path, or one of a file."""
        folder = Path(self.path).expanduser()
        if not self.path or (folder.exists() and not folder.is_dir()):
            raise ConfigError("data.path", self.path, self.allowed())
        return folder

    def allowed(self) -> str:
        """State which folders can be read."""
        return f"a folder that holds `{self.layout}`, which data.download=true fetches from the internet"

    def _torchvision(self, *, train: bool) -> Any:
        from torchvision import datasets

        # torchvision unpickles the files; it checks their MD5 first, so they are the published ones.
        try:
            return getattr(datasets, self.archive)(self.folder(), train=train, download=self.download)
        except ConfigError:
            raise
        except Exception as error:  # files and networks fail in many ways
            reason = " ".join(str(error).split())[:120]
            if self.download:
                raise ConfigError("data.download", True, f"possible here; it failed ({reason})") from None
            raise ConfigError("data.path", self.path, f"{self.allowed()}; this one is damaged ({reason})") from None


@register("cifar100")
@dataclass
class Cifar100(Cifar):
    """32 x 32 colour photographs, 50,000 + 10,000 of 100 classes (fine labels)."""

    archive: ClassVar[str] = "CIFAR100"
    layout: ClassVar[str] = "cifar-100-python"


@register("cifar10")
@dataclass
class Cifar10(Cifar):
    """32 x 32 colour photographs, 50,000 + 10,000 of 10 classes.

    Also from six .npz files of losslessly encoded pictures, of which nothing is unpickled.
    """

    archive: ClassVar[str] = "CIFAR10"
    layout: ClassVar[str] = "cifar-10-batches-py"

    def fingerprint(self) -> str:
        """Return names and CRCs of the .npz files' arrays, or what decides torchvision's samples."""
        files = self._files()
        if not files:
            return super().fingerprint()
        return f"{' '.join(content_key(file) for file in files)} per_class={self.per_class}"

    def read(self) -> Dataset:
        """Decode the .npz files, 5 to 15 s for all of them on one core, or read torchvision's."""
        files = self._files()
        if not files:
            return super().read()
        parts = [read_encoded(file, CIFAR10_NAMES) for file in files]
        train, test = _decode(parts[:-1], self.per_class), _decode(parts[-1:], 0)
        return build_dataset(self.path, self, train, test, CIFAR10_NAMES)

    def allowed(self) -> str:
        """State which folders can be read."""
        return f"a folder that holds {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILE}, or {super().allowed()}"

    def _files(self) -> list[Path]:
        """Return the six files, or none where torchvision's layout is to be read."""
        folder = self.folder()
        files = [folder / name for name in (*TRAIN_FILES, TEST_FILE)]
        missing = [file.name for file in files if not file.is_file()]
        if len(missing) == len(files):
            return []
        if missing:
            raise ConfigError("data.path", self.path, f"{self.allowed()}; {missing[0]} is missing")
        return files


def _decode(parts: list[Encoded], per_class: int) -> Samples:
    y = np.concatenate([part.labels for part in parts])
    keep = first_of_each(y, per_class)
    x = np.concatenate([part.decode(which, SIDE) for part, which in _within(parts, keep)])
    return _samples(x, y[keep])


def _within(parts: list[Encoded], keep: NDArray[np.int64]) -> Iterator[tuple[Encoded, list[int]]]:
    start = 0
    for part in parts:
        end = start + len(part.labels)
        yield part, [int(i) - start for i in keep[(keep >= start) & (keep < end)]]
        start = end


def _samples(x: NDArray[np.uint8], y: NDArray[np.int64]) -> Samples:
    return Samples(np.ascontiguousarray(x), y, np.full(len(y), -1, np.int64))
