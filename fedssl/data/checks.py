"""Data that can be read and are hardly what was meant: a line each, from samples of the samples, for the user.

Shared by everything that decodes data: runs, splits, pre-training and prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import Dataset, Samples

Array = NDArray[Any]
Ints = NDArray[np.int64]

_ROWS, _BYTES = 256, 1 << 21
"""Most samples, and most bytes, that are looked at."""
_MOST = 0.5
"""Share of the samples looked at from which a fault is no exception."""
_COPIES = 0.25
_RATIO = 5.0
"""Standard deviations of training and test further apart than this are of another scale."""
_SHIFT = 3.0
"""So are means that lie this many standard deviations apart."""
_FEW = 16
"""Samples that a scale is judged by, at least."""
_NAMED = 6
_POINTS = 16


def check_dataset(dataset: Dataset) -> list[str]:
    """Return warnings of a data set; those of its source come first."""
    train, test = dataset.train, dataset.test
    seen, scored = _some(train.x), _some(test.x)
    found = list(dataset.warnings)
    if not train.holds_boxes:
        found += _classes(train, test, dataset.class_names)
    for part, x in (("training", seen), ("test", scored)):
        found += check_samples(x, part)
    # What is wrong within a part says more than the difference that follows from it.
    if not found[len(dataset.warnings) :]:
        found += _compared(scored, _moments(scored), _moments(seen), "test")
    return found + _copies(train.x, test.x)


def check_samples(x: Array, part: str) -> list[str]:
    """Return warnings of images (n, h, w, c) or windows (n, steps, channels) by themselves; `part` names them."""
    x = _some(x)
    if not len(x):
        return []
    kind = _kind(x)
    flat = x.reshape(len(x), -1) if kind == "images" else x.transpose(0, 2, 1)
    still = flat.max(axis=-1) == flat.min(axis=-1)
    still = still if kind == "images" else still.all(axis=1)
    of = f"{part} {kind} looked at"
    cast = "; were they floats in 0..1, cast to uint8?" if kind == "images" and x.max() <= 1 else ""
    if len(x) > 1 and (x == x[:1]).all():
        return [f"all {len(x)} {of} are the same{cast}"]
    if still.mean() >= _MOST:
        what = "are of one colour" if kind == "images" else "never change"
        return [f"{int(still.sum())} of {len(x)} {of} {what}{cast}"]
    return [f"the {of} have no pixel above 1 of 255{cast}"] if cast else []


def check_scale(x: Array, mean: Sequence[float], std: Sequence[float], part: str) -> list[str]:
    """Return warnings of samples whose values lie far from what a model was trained on.

    `mean` and `std` are the training data's, a channel: of pixels in 0..1, or in a window's units.
    """
    if len(x) < _FEW:
        return []
    x = _some(x)
    unit = 255 if _kind(x) == "images" else 1
    return _compared(x, _moments(x), (np.array(mean) * unit, np.array(std) * unit), part)


def is_cast(y: Array) -> bool:
    """Say whether whole numbers hold -1 cast to their unsigned type: its highest value, and not the one before."""
    if y.dtype.kind != "u":
        return False
    top = np.iinfo(y.dtype).max
    return bool((y == top).any() and not (y == top - 1).any())


def _some(x: Array) -> Array:
    """Return evenly spaced samples: few enough to be cheap, whatever the data set's size."""
    count = min(len(x), _ROWS, max(8, _BYTES // max(1, x[:1].nbytes)))
    return np.asarray(x[np.linspace(0, len(x) - 1, count).astype(np.int64)]) if len(x) > count else np.asarray(x)


def _kind(x: Array) -> str:
    return "images" if x.ndim == 4 else "windows"


def _classes(train: Samples, test: Samples, names: Sequence[str]) -> list[str]:
    counts, scored = (np.bincount(part.y[part.y >= 0], minlength=len(names)) for part in (train, test))
    labelled = "labelled training sample" if (train.y < 0).any() else "training sample"
    found = []
    if len(gone := np.flatnonzero(counts == 0)):
        hint = "; do the labels begin at 1?" if gone.tolist() == [0] else ""
        tested = int((scored[gone] > 0).sum())
        also = f", and {tested} of them in test samples" if tested else ""
        found.append(f"{_named(gone, names)} no {labelled}{also}{hint}")
    if len(gone := np.flatnonzero((scored == 0) & (counts > 0))) and scored.any():
        found.append(f"{_named(gone, names)} no test sample, so scores say nothing of {_them(gone)}")
    if (used := np.count_nonzero(counts)) * 2 > counts.sum():
        found.append(
            f"{used} classes for {counts.sum()} labelled training samples: are these labels numbers of samples?"
        )
    return found


def _named(classes: Ints, names: Sequence[str]) -> str:
    """Return `class a has`, or `3 of 10 classes (a, b, c) have`."""
    if len(classes) == 1:
        return f"class {names[classes[0]]} has"
    more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
    return f"{len(classes)} of {len(names)} classes ({', '.join(names[i] for i in classes[:_NAMED])}{more}) have"


def _them(classes: Ints) -> str:
    return "it" if len(classes) == 1 else "them"


def _moments(x: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of each channel, float64."""
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    return rows.mean(axis=0), rows.std(axis=0)


def _compared(x: Array, new: tuple[Array, Array], known: tuple[Array, Array], part: str) -> list[str]:
    (mean, std), (known_mean, known_std) = new, known
    if _kind(x) == "windows":
        # A person at rest moves far less than others, in the same unit: what counts is gravity too, over all channels.
        size, known_size = (float(np.sqrt((m**2 + s**2).mean())) for m, s in (new, known))
        far = max(size, known_size) > _RATIO * min(size, known_size)
        numbers = f"root mean square {size:.4g} and {known_size:.4g}; are they in the same unit?"
    else:
        wide, narrow = np.maximum(std, known_std), np.minimum(std, known_std)
        far = bool(((wide > _RATIO * narrow) | (np.abs(mean - known_mean) > _SHIFT * wide)).any())
        numbers = f"mean {_list(mean)} and {_list(known_mean)}, standard deviation {_list(std)} and {_list(known_std)}"
    return [f"the {part} data are of another scale than the training data: {numbers}"] if far else []


def _list(values: Array) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _copies(train: Array, test: Array) -> list[str]:
    """Return warnings of test samples that are training samples, and of training samples that are there twice."""
    if len(train) < 2 or train.shape[1:] != test.shape[1:]:
        return []
    keys = _keys(train)
    order = np.argsort(keys, kind="stable")
    found, rows = [], _rows(len(test))
    if (share := _twins(train, keys, order, test, rows, itself=False)) >= _COPIES:
        found.append(f"{share:.0%} of the test samples looked at are training samples too, so scores are too good")
    if (share := _twins(train, keys, order, train, _rows(len(train)), itself=True)) >= _COPIES:
        found.append(f"{share:.0%} of the training samples looked at are there more than once")
    return found


def _twins(train: Array, keys: Array, order: Ints, x: Array, rows: Ints, *, itself: bool) -> float:
    """Return the share of `x[rows]` that some other training sample equals."""
    wanted, ordered = _keys(x[rows]), keys[order]
    starts, stops = (np.searchsorted(ordered, wanted, side) for side in ("left", "right"))
    hits = 0
    for row, start, stop in zip(rows, starts, stops, strict=True):
        # A few of those that agree at all points are enough: others of them agree by chance.
        near = [i for i in order[start : min(stop, start + 4)] if not (itself and i == row)]
        hits += any(np.array_equal(train[i], x[row]) for i in near)
    return hits / max(1, len(rows))


def _rows(length: int) -> Ints:
    return np.unique(np.linspace(0, max(0, length - 1), min(length, 64)).astype(np.int64))


def _keys(x: Array) -> NDArray[np.uint64]:
    """Return a number of each sample that equal samples share, from a few evenly spaced values."""
    flat = x.reshape(len(x), -1)
    points = np.linspace(0, flat.shape[1] - 1, _POINTS + 2).astype(np.int64)[1:-1]
    values = np.ascontiguousarray(flat[:, points])
    bits = values.view(np.uint32 if values.itemsize == 4 else np.uint8).astype(np.uint64)
    weights = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, bits.shape[1] + 1, dtype=np.uint64)
    keys: NDArray[np.uint64] = (bits * weights).sum(axis=1, dtype=np.uint64)
    return keys
