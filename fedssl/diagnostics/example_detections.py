"""Detections in a few test images of each weather: before and after the warm-up, and at the end of a run."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data.base import Dataset
from fedssl.data.views.modality import model_input
from fedssl.tasks.base import TASKS

EXAMPLES_PER_DOMAIN = 2
"""Test pictures of each weather."""
MIN_SCORE = 0.25
"""Least score of a box that is kept."""
TOTAL = "map50_total"
_BATCH = 32


def scores(model: torch.nn.Module, dataset: Dataset, kinds: NDArray[np.int8]) -> dict[str, float]:
    """Return the detection task's scores on all test pictures; `kinds` as in `Split.kinds`."""
    task = TASKS.create({"name": "detection"})
    index = np.arange(len(dataset.test))
    answers = task.predict(model, _batches(model, dataset, index))
    return task.score(answers, task.truth(dataset, dataset.test, index), kinds)


def chosen(dataset: Dataset) -> NDArray[np.int64]:
    """Return the test pictures shown: the first ones of each weather, or of all without weathers."""
    domain = dataset.test.domain
    if not len(domain):
        return np.arange(min(EXAMPLES_PER_DOMAIN, len(dataset.test)))
    return np.concatenate([np.flatnonzero(domain == one)[:EXAMPLES_PER_DOMAIN] for one in np.unique(domain)])


def found(model: torch.nn.Module, dataset: Dataset) -> torch.Tensor:
    """Return detections in the `chosen` images: rows (m, 7) of place in `chosen`, x1 y1 x2 y2, class, score."""
    index = chosen(dataset)
    answers = TASKS.create({"name": "detection"}).predict(model, _batches(model, dataset, index)).above(MIN_SCORE)
    place = np.repeat(np.arange(len(index)), np.diff(answers.offsets))
    return torch.from_numpy(np.column_stack([place, answers.xyxy, answers.label, answers.score]).astype(np.float32))


def pictures(dataset: Dataset, rows: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Return each picture as JSON's types.

    `weather`, `picture` (base64 of a JPEG file), `true` boxes [x1, y1, x2, y2, class], and for each of `rows`, as
    `found` gives them, a list of [x1, y1, x2, y2, class, score].
    """
    shown = []
    for place, i in enumerate(chosen(dataset)):
        xyxy, classes = dataset.test.boxes_of(int(i))
        domain = int(dataset.test.domain[i]) if len(dataset.test.domain) else -1
        shown.append(
            {
                "weather": dataset.domain_names[domain] if domain >= 0 else "",
                "picture": _encoded(dataset.test.x[i]),
                "true": [[*map(float, box), int(one)] for box, one in zip(xyxy, classes, strict=True)],
                **{name: _of(made, place) for name, made in rows.items()},
            }
        )
    return shown


def outcome(
    model: torch.nn.Module,
    dataset: Dataset,
    kinds: NDArray[np.int8],
    first: dict[str, float],
    rows: dict[str, torch.Tensor],
) -> dict[str, Any]:
    """Return the detector section of `method.json`.

    Scores `first`, after the warm-up, and of the `model` at the end, `collapsed` if these are lower, and the pictures
    with `rows`, as `pictures` takes them, and what the model finds.
    """
    last = {name: value for name, value in scores(model, dataset, kinds).items() if not math.isnan(value)}
    main = TOTAL if TOTAL in first else "map50"
    return {
        "main_metric": main,
        "warm_up": first,
        "final": last,
        "collapsed": last.get(main, 0.0) < first.get(main, 0.0),
        "class_names": list(dataset.class_names),
        "pictures": pictures(dataset, {**rows, "end": found(model, dataset).cpu()}),
    }


def _of(rows: torch.Tensor, place: int) -> list[list[float]]:
    mine: list[list[float]] = rows[rows[:, 0] == place][:, 1:].tolist()
    return [[*row[:4], int(row[4]), row[5]] for row in mine]


def _batches(model: torch.nn.Module, dataset: Dataset, index: NDArray[np.int64]) -> Iterator[torch.Tensor]:
    device = next(model.parameters()).device
    for i in range(0, len(index), _BATCH):
        x = torch.from_numpy(dataset.test.x[index[i : i + _BATCH]]).to(device)
        yield model_input(x, dataset.mean, dataset.std, dataset.limit)


def _encoded(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()
