"""The numbers behind the open-world figures of a report: a confusion matrix, and a plane through the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import SEEN, Ints
from fedssl.metrics.open_world import matching

Floats = NDArray[np.float64]
_DIGITS = 4


def describe(predicted: Ints, y: Ints, names: Sequence[str], kinds: NDArray[np.int8]) -> dict[str, Any]:
    """Return `classes`, their `kinds`, `matching` (class by predicted id, over all rows) and `confusion` after it.

    `confusion` counts rows by true class and matched class; rows with y = -1 (unknown) are left out. `named` gives a
    class by id as training names them: seen ones are themselves, the others are matched among themselves.
    """
    known, num_classes = y >= 0, len(names)
    predicted, y = predicted[known], y[known]
    found = matching(predicted, y, num_classes)
    counts = np.bincount(y * num_classes + found[predicted], minlength=num_classes**2)
    return {
        "classes": list(names),
        "kinds": kinds.tolist(),
        "matching": found.tolist(),
        "named": _named(predicted, y, kinds).tolist(),
        "confusion": counts.reshape(num_classes, num_classes).tolist(),
    }


def _named(predicted: Ints, y: Ints, kinds: NDArray[np.int8]) -> Ints:
    free = np.flatnonzero(kinds != SEEN)
    place = np.full(len(kinds), -1)
    place[free] = np.arange(len(free))
    both = (place[predicted] >= 0) & (place[y] >= 0)
    found = np.arange(len(kinds))
    found[free] = free[matching(place[predicted[both]], place[y[both]], len(free))]
    return found


def picture(features: Floats, y: Ints, centroids: Floats | None, named: Sequence[int]) -> dict[str, Any]:
    """Return `points` on the two directions of largest variance of the unit features, and `variance`, their shares.

    Global centroids (classes, dim), if any, are projected on the same plane; their `class` is what each stands for.
    """
    rows = _unit(features)
    centre = rows.mean(axis=0)
    _, size, directions = np.linalg.svd(rows - centre, full_matrices=False)
    plane = np.zeros((2, rows.shape[1]))
    plane[: len(directions[:2])] = directions[:2]
    # A singular vector has no sign of its own: the largest part is made positive.
    signs = np.sign(np.take_along_axis(plane, np.abs(plane).argmax(axis=1)[:, None], axis=1))
    plane *= np.where(signs == 0, 1, signs)
    total = float((size**2).sum())
    shares = [float(value**2 / total) if total else 0.0 for value in size[:2]]
    made: dict[str, Any] = {
        "points": {"x": _on(plane[0], rows - centre), "y": _on(plane[1], rows - centre), "class": y.tolist()},
        "variance": [round(share, _DIGITS) for share in shares],
        "centroids": None,
    }
    if centroids is not None:
        shifted = _unit(centroids) - centre
        made["centroids"] = {"x": _on(plane[0], shifted), "y": _on(plane[1], shifted), "class": list(named)}
    return made


def _unit(rows: Floats) -> Floats:
    length: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, 1e-12)


def _on(direction: Floats, rows: Floats) -> list[float]:
    values: list[float] = (rows @ direction).round(_DIGITS).tolist()
    return values
