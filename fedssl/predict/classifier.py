"""A classifier outside a run: classes of images or sensor windows, as arrays and as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedssl.calibration.base import CalibrationHook
from fedssl.config import ConfigError
from fedssl.data.checks import check_samples, check_scale
from fedssl.data.sources.recordings import read_windows
from fedssl.data.views.modality import deviations, holds_windows, model_input
from fedssl.files import printable, write_atomically
from fedssl.predict.images import check_images, read_images
from fedssl.predict.model_file import Meta, Shape

if TYPE_CHECKING:
    import torch

_BATCH = 500


@dataclass(frozen=True)
class Predictor:
    """The model of a run; call it on samples."""

    model: torch.nn.Module
    calibration: CalibrationHook
    extra: dict[str, torch.Tensor]
    meta: Meta

    def __call__(self, samples: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the class index and the calibrated confidence (0..1) of each sample.

        `samples` are pictures, uint8 (n, height, width[, channels]), or windows in physical units, floats
        (n, steps, channels). Raises ConfigError for any other.
        """
        if holds_windows(self.meta.shape):
            samples = check_windows("windows", samples, self.meta.shape)
        else:
            samples = check_images("images", samples, self.meta.shape)
        if len(samples) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        probabilities = self._probabilities(samples)
        confidence, label = probabilities.max(dim=1)
        return label.numpy(), confidence.numpy()

    def _probabilities(self, samples: NDArray[Any]) -> torch.Tensor:
        import torch

        from fedssl.tasks.classification import predict

        meta, starts = self.meta, range(0, len(samples), _BATCH)
        parts = (torch.from_numpy(samples[start : start + _BATCH]) for start in starts)
        logits = predict(self.model, (model_input(part, meta.mean, meta.std, meta.limit) for part in parts))
        return torch.softmax(self.calibration.apply(torch.from_numpy(logits), self.extra), dim=1)


def read_samples(path: str | Path, meta: Meta) -> tuple[list[str], NDArray[Any]]:
    """Return names and samples of the kind that the model takes: see `read_images` and `read_windows`."""
    if holds_windows(meta.shape):
        return read_windows(path, meta.shape, meta.rate_hz)
    return read_images(path, meta.shape)


def sample_warnings(samples: NDArray[Any], meta: Meta) -> list[str]:
    """Return warnings of new samples that can hardly be of the kind that the model was trained on."""
    std = deviations(meta.std, meta.limit)
    found = check_samples(samples, "new")
    return found or check_scale(samples, meta.mean, std, "new")


def write_predictions(
    path: str | Path,
    names: Sequence[str],
    labels: NDArray[np.int64],
    confidences: NDArray[np.float32],
    class_names: Sequence[str],
) -> None:
    """Write a CSV file of name, label (class index), class_name and confidence, atomically.

    Bytes of a name that are no UTF-8 are written as `\\xe9`.
    """
    table = StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["name", "label", "class_name", "confidence"])
    for name, label, confidence in zip(names, labels, confidences, strict=True):
        writer.writerow([printable(name), int(label), class_names[label], f"{confidence:.6f}"])
    write_atomically(Path(path), table.getvalue().encode())


def check_windows(name: str, windows: NDArray[Any], shape: Shape) -> NDArray[np.float32]:
    """Return the windows as contiguous float32 (n, *shape). Raises ConfigError on `name`."""
    windows = np.asarray(windows)
    if windows.dtype.kind not in "iuf" or windows.shape[1:] != shape or not np.isfinite(windows).all():
        given = f"{windows.dtype} {'x'.join(map(str, windows.shape))}"
        raise ConfigError(name, given, f"finite numbers nx{'x'.join(map(str, shape))}, as the model was trained")
    return np.require(windows, np.float32, requirements=["C", "W"])
