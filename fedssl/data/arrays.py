"""Checks on arrays that come from outside, and what is computed from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.base import Dataset, DataSource, Samples
from fedssl.data.checks import is_cast

MIN_SIDE, MAX_SIDE = 8, 96
MAX_CLASSES = 1000
_CHUNK = 1024


def dataset_key(source: DataSource) -> str:
    """Return the hash that names a source's samples in the cache."""
    return hashlib.sha256(f"{source.name}\n{source.fingerprint()}".encode()).hexdigest()


def check_images(path: str, name: str, x: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the images as uint8 (n, height, width, channels); floats must lie in 0..1."""
    if x.ndim not in (3, 4):
        raise _refuse(path, name, f"of shape (n, h, w) or (n, h, w, c), not {x.shape}")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise _refuse(path, name, f"uint8, or float in 0..1, not {x.dtype}")
    x = x if x.ndim == 4 else x[..., None]
    count, height, width, channels = x.shape
    if count == 0:
        raise _refuse(path, name, "not empty")
    if channels not in (1, 3):
        order = f"; its shape {x.shape} looks like (n, c, h, w): transpose it" if height in (1, 3) else ""
        raise _refuse(path, name, f"of 1 or 3 channels, (n, h, w, c), not {channels}{order}")
    if not (min(height, width) >= MIN_SIDE and max(height, width) <= MAX_SIDE):
        raise _refuse(path, name, f"of sides {MIN_SIDE}..{MAX_SIDE}, not {height} x {width}")
    return np.ascontiguousarray(x if x.dtype == np.uint8 else _to_bytes(path, name, x))


def _to_bytes(path: str, name: str, x: NDArray[Any]) -> NDArray[np.uint8]:
    out = np.empty(x.shape, np.uint8)
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK]
        if not np.isfinite(part).all():
            raise _refuse(path, name, "free of NaN and infinity")
        if part.min() < 0 or part.max() > 1:
            raise _refuse(path, name, "uint8, or float in 0..1 (it has values outside 0..1)")
        out[start : start + _CHUNK] = np.rint(part.astype(np.float64) * 255)
    return out


def check_integers(path: str, name: str, y: NDArray[Any], count: int, highest: int) -> NDArray[np.int64]:
    """Return whole numbers -1..`highest`, one a sample, as int64."""
    if y.ndim != 1:
        hint = "; of one row a class, take argmax(axis=1)" if y.ndim == 2 and y.shape[1] > 1 else ""
        raise _refuse(path, name, f"of shape (n,), not {y.shape}{hint}")
    if y.dtype.kind not in "iu":
        hint = "; convert it with astype(int)" if y.dtype.kind == "f" else ""
        raise _refuse(path, name, f"of whole numbers, not {y.dtype}{hint}")
    if len(y) != count:
        raise _refuse(path, name, f"as long as its images: {count}, not {len(y)}")
    if is_cast(y):
        raise _refuse(path, name, f"signed where -1 means unlabelled: {y.max()} in {y.dtype} is -1 cast")
    wrong = (y > highest) | (y < -1)
    if wrong.any():
        where = int(wrong.argmax())
        raise _refuse(path, name, f"in -1..{highest}, not {int(y[where])} (sample {where})")
    return y.astype(np.int64)


def build_dataset(path: str, source: DataSource, train: Samples, test: Samples, names: Sequence[str]) -> Dataset:
    """Put the checked parts together. `path` is named in errors."""
    if train.x.shape[1:] != test.x.shape[1:]:
        shapes = f"{train.x.shape[1:]} and {test.x.shape[1:]}"
        raise _refuse(path, "x_test", f"of the shape of array `x_train`, not {shapes}")
    known = np.unique(train.y[train.y >= 0])
    if not len(known):
        raise _refuse(path, "y_train", "labelled in at least one sample of two classes (all are -1)")
    if len(known) < 2:
        raise _refuse(path, "y_train", f"of at least 2 classes, not only class {int(known[0])}")
    if (test.y < 0).any():
        raise _refuse(path, "y_test", "labelled throughout (it has -1)")
    mean, std = channel_moments(train.x)
    return Dataset(source.name, train, test, tuple(names), mean, std, dataset_key(source))


def channel_moments(x: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (at least 1e-3) of each channel, pixels in 0..1."""
    value = np.arange(256) / 255
    means, stds = [], []
    for channel in range(x.shape[3]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(x), _CHUNK):
            counts += np.bincount(x[start : start + _CHUNK, :, :, channel].ravel(), minlength=256)
        share = counts / counts.sum()
        mean = float(share @ value)
        means.append(mean)
        stds.append(max(float(np.sqrt(share @ (value - mean) ** 2)), 1e-3))
    return tuple(means), tuple(stds)


def first_of_each(y: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return sorted positions of the first `count` samples of each known class; of all samples, if `count` is 0."""
    if not count:
        return np.arange(len(y))
    first = [np.flatnonzero(y == label)[:count] for label in np.unique(y[y >= 0])]
    return np.sort(np.concatenate([*first, np.zeros(0, np.int64)]))


def stratified(y: NDArray[np.int64], share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return sorted indices of `share` of each class's samples; one of each class is always left out.

    Counts are rounded by largest remainder, so that the total is right too. Samples of unknown
    class are never drawn.
    """
    classes, sizes = np.unique(y[y >= 0], return_counts=True)
    counts = apportion(np.minimum(sizes * share, sizes - 1.0), sizes - 1)
    drawn = [
        generator.permutation(np.flatnonzero(y == label))[:count] for label, count in zip(classes, counts, strict=True)
    ]
    return np.sort(np.concatenate([*drawn, np.zeros(0, np.int64)]))


def apportion(wanted: NDArray[np.float64], most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round to whole numbers of the same total by largest remainder, none above `most`."""
    counts = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), most)
    missing = round(float(wanted.sum())) - int(counts.sum())
    order = np.argsort(counts - wanted, kind="stable")
    order = order[((counts < most) & (wanted > 0))[order]][: max(missing, 0)]
    counts[order] += 1
    return counts


def _refuse(path: str, name: str, allowed: str) -> ConfigError:
    return ConfigError("data.path", path, f"a file whose array `{name}` is {allowed}")
