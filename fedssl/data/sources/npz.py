"""Data from a numpy .npz file: `data=npz data.path=FILE`."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.arrays import MAX_CLASSES, build_dataset, check_images, check_integers, stratified
from fedssl.data.base import Dataset, DataSource, Samples, register
from fedssl.files import expanded
from fedssl.rng import Rng

ALIASES = {
    "x_train": "train_images",
    "y_train": "train_labels",
    "x_test": "test_images",
    "y_test": "test_labels",
}
OPTIONAL = ("class_names", "group_train", "group_test")


@register("npz")
@dataclass
class Npz(DataSource):
    """A .npz file with arrays `x_train`, `y_train`, and perhaps `x_test`, `y_test`, `class_names`.

    Images are uint8, or float in 0..1, (n, h, w) or (n, h, w, c); a label of -1 means that nobody
    knows the class. `group_train` and `group_test` may give each sample's natural group.
    """

    path: str = option("", "the .npz file", path=True)
    test_share: float = option(
        0.2,
        "share of the labelled samples that becomes the test split of a file without one",
        above=0,
        below=1,
    )

    def fingerprint(self) -> str:
        """Return the hash of the file and what else decides the samples."""
        return f"{file_sha256(self.path)} test_share={self.test_share}"

    def read(self) -> Dataset:
        """Decode and check the file."""
        return read_npz(self, self.path, self.test_share)


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file's bytes. Raises ConfigError if it cannot be read."""
    if not path:
        raise ConfigError("data.path", path, "the path of a .npz file")
    place = expanded(path)
    if not place.is_file():
        reason = "a file, not a folder" if place.is_dir() else "a file that exists"
        raise ConfigError("data.path", path, reason)
    try:
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError("data.path", path, f"a file that can be read ({error.strerror})") from None


def read_npz(source: DataSource, path: str, test_share: float) -> Dataset:
    """Return the checked samples of a .npz file; errors name the file's `path` and the array."""
    arrays = _load(path)
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ConfigError("data.path", path, "a file with both arrays `x_test` and `y_test`, or neither")
    names = _class_names(path, arrays)
    highest = (len(names) if names else MAX_CLASSES) - 1
    train = _samples(path, arrays, "train", highest)
    if "x_test" in arrays:
        test = _samples(path, arrays, "test", highest)
    else:
        train, test = split_off_test(train, test_share)
    if not len(test):
        raise ConfigError("data.path", path, "a file with array `x_test`, or with enough labels to split one off")
    if not names:
        count = int(max(train.y.max(), test.y.max())) + 1
        names = tuple(str(label) for label in range(count))
    return build_dataset(path, source, train, test, names)


def split_off_test(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """Split samples into training and test, class by class, always in the same way."""
    drawn = np.zeros(len(samples), bool)
    drawn[stratified(samples.y, share, Rng(0).numpy("test split"))] = True
    train, test = (Samples(samples.x[part], samples.y[part], samples.group[part]) for part in (~drawn, drawn))
    return train, test


def _load(path: str) -> dict[str, NDArray[Any]]:
    file_sha256(path)
    place = expanded(path)
    if not zipfile.is_zipfile(place):
        raise ConfigError("data.path", path, "a .npz file (a zip of .npy arrays; this is none, or cut short)")
    arrays: dict[str, NDArray[Any]] = {}
    name = ""
    # A file from outside breaks numpy's reader in many ways; each must end as one clear line.
    try:
        with np.load(place, allow_pickle=False) as content:
            for name in (*ALIASES, *OPTIONAL):
                stored = name if name in content else ALIASES.get(name, name)
                if stored in content:
                    arrays[name] = np.asarray(content[stored])
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError("data.path", path, f"a sound .npz file; array `{name}` cannot be read ({reason})") from None
    for name in ("x_train", "y_train"):
        if name not in arrays:
            raise ConfigError("data.path", path, f"a file with array `{name}` (or `{ALIASES[name]}`)")
    return arrays


def _class_names(path: str, arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    if "class_names" not in arrays:
        return ()
    given = arrays["class_names"]
    if given.ndim != 1 or given.dtype.kind != "U" or len(set(given.tolist())) != len(given):
        raise ConfigError("data.path", path, "a file whose array `class_names` is of different texts, shape (k,)")
    if not 2 <= len(given) <= MAX_CLASSES:
        raise ConfigError("data.path", path, f"a file whose array `class_names` has 2..{MAX_CLASSES} names")
    return tuple(str(text) for text in given)


def _samples(path: str, arrays: Mapping[str, NDArray[Any]], part: str, highest: int) -> Samples:
    x = check_images(path, f"x_{part}", arrays[f"x_{part}"])
    y = check_integers(path, f"y_{part}", arrays[f"y_{part}"], len(x), highest)
    group = np.full(len(x), -1, np.int64)
    if f"group_{part}" in arrays:
        top = int(np.iinfo(np.int64).max)
        group = check_integers(path, f"group_{part}", arrays[f"group_{part}"], len(x), top)
    return Samples(x, y, group)
