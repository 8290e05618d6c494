"""The final model outside a run: saved, loaded in three lines, and asked about pictures or sensor windows.

from fedssl.predictor import load
predict = load("runs/x")
labels, confidences = predict(samples)
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedssl.calibration.base import CALIBRATIONS, CalibrationHook
from fedssl.config import ConfigError
from fedssl.data.base import Dataset
from fedssl.data.checks import check_samples, check_scale
from fedssl.data.eight_bits import eight_bits
from fedssl.data.modality import deviations, holds_windows, model_input
from fedssl.data.recordings import read_windows
from fedssl.files import expanded, is_hidden, printable, write_atomically
from fedssl.models.base import MODELS

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from fedssl.box_predictor import BoxPredictor

Shape = tuple[int, ...]
_FORMAT = 1
_EXTRA = "extra/"
_BATCH = 500
_ARRAYS = ("x", "images", "x_test", "test_images")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Meta:
    """What the model was trained on; the fields are those of `fedssl.data.base.Dataset`."""

    shape: Shape
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    limit: float = 0.0
    rate_hz: float = 0.0
    task: str = ""
    """What the model does: classification, sensing or detection; made when empty."""

    def __post_init__(self) -> None:
        if not self.task:
            object.__setattr__(self, "task", "sensing" if holds_windows(self.shape) else "classification")

    @classmethod
    def of(cls, dataset: Dataset) -> Meta:
        """Give what to know of a data set."""
        known = {item.name: getattr(dataset, item.name) for item in fields(cls) if item.name != "task"}
        return cls(**known, task="detection" if dataset.train.holds_boxes else "")


@dataclass(frozen=True)
class Predictor:
    """The model of a run; call it on samples."""

    model: torch.nn.Module
    calibration: CalibrationHook
    extra: dict[str, torch.Tensor]
    meta: Meta

    def __call__(self, samples: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Give the class index and the calibrated confidence (0..1) of each sample.

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


def save(
    directory: str | Path,
    model_choice: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    extra: Mapping[str, torch.Tensor],
    calibration: Mapping[str, Any],
    *,
    meta: Meta,
    partial: str = "",
) -> None:
    """Write model.safetensors and model.json, each atomically; the JSON holds the tensors' hash.

    `partial` says which parts of the model stay elsewhere; `load` refuses such a model.

    Tensors keep their names; those of `extra` (the server's, for calibration) begin with `extra/`. Detectors need none.
    """
    from safetensors.torch import save as to_bytes

    needed = extra if meta.task != "detection" else {}
    tensors = {**state, **{_EXTRA + name: tensor for name, tensor in needed.items()}}
    content = to_bytes({name: tensors[name].detach().cpu().contiguous().clone() for name in tensors})
    described = {
        "format": _FORMAT,
        "model": dict(model_choice),
        "calibration": dict(calibration),
        **asdict(meta),
        **({"partial": partial} if partial else {}),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_atomically(Path(directory) / "model.safetensors", content)
    write_atomically(Path(directory) / "model.json", (json.dumps(described, indent=2) + "\n").encode())


def load(directory: str | Path) -> Predictor | BoxPredictor:
    """Read what `save` wrote: a detector gives boxes. Raises ConfigError naming the directory and what is wrong.

    A model of the run's own code (`method_file`) needs `FEDSSL_ALLOW_CODE=1`, which runs that code.
    """
    import torch
    from safetensors.torch import load as from_bytes

    from fedssl.box_predictor import BoxPredictor

    described, content = _read(Path(directory))
    if partial := described.get("partial"):
        raise ConfigError("predict", str(directory), f"a run with one whole model; of this one, {partial}")
    if described["model"]["name"] not in MODELS.names() or described["calibration"]["name"] not in CALIBRATIONS.names():
        _run_code(Path(directory))
    tensors = {name: tensor.clone() for name, tensor in from_bytes(content).items()}
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_EXTRA)}
    extra = {name.removeprefix(_EXTRA): tensors[name] for name in tensors.keys() - state.keys()}
    known = {item.name: described[item.name] for item in fields(Meta) if item.name in described}
    tuples: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in known.items()}
    meta = Meta(**tuples)
    with torch.device("meta"):
        model = MODELS.create(described["model"]).build(meta.shape, len(meta.class_names))
    model = model.to_empty(device="cpu").to(memory_format=torch.channels_last)
    model.load_state_dict(state)
    if meta.task == "detection":
        return BoxPredictor(model.eval(), meta)
    return Predictor(
        model=model.eval(),
        calibration=CALIBRATIONS.create(described["calibration"]),
        extra=extra,
        meta=meta,
    )


def read_samples(path: str | Path, meta: Meta) -> tuple[list[str], NDArray[Any]]:
    """Give names and samples of the kind that the model takes: see `read_images` and `read_windows`."""
    if holds_windows(meta.shape):
        return read_windows(path, meta.shape, meta.rate_hz)
    return read_images(path, meta.shape)


def read_images(path: str | Path, shape: Shape) -> tuple[list[str], NDArray[np.uint8]]:
    """Give names and uint8 (n, height, width, channels) images of an .npz, an image or a folder.

    An .npz holds `x`, `images`, `x_test` or `test_images`; its rows are named by number. Image
    files are converted and resized to `shape`; folders are read to all depths, in path order.
    Raises ConfigError naming the file.
    """
    path = expanded(path)
    if path.suffix == ".npz" and path.is_file():
        images = check_images("data", read_npz(path), shape)
        return [str(row) for row in range(len(images))], images
    names, files = zip(*image_files(path), strict=True)
    return list(names), np.stack([_read_image(file, shape) for file in files])


def doubts(samples: NDArray[Any], meta: Meta) -> list[str]:
    """Return warnings of new samples that can hardly be of the kind that the model was trained on."""
    std = deviations(meta.std, meta.limit)
    found = check_samples(samples, "new")
    return found or check_scale(samples, meta.mean, std, "new")


def image_files(path: Path) -> list[tuple[str, Path]]:
    """Return names and paths of an image file, or of those in a folder to all depths, sorted. Raises ConfigError.

    Hidden files and folders are passed over.
    """
    if path.is_file():
        return [(path.name, path)]
    found = sorted((file.relative_to(path), file) for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
    files = [(name.as_posix(), file) for name, file in found if not is_hidden(name) and file.is_file()]
    if not files:
        raise ConfigError("data", str(path), "an .npz, an image file, or a folder that holds images")
    return files


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


def check_images(name: str, images: NDArray[Any], shape: Shape) -> NDArray[np.uint8]:
    """Give the images as contiguous, writable uint8 (n, *shape). Raises ConfigError on `name`."""
    images = np.asarray(images)
    if images.ndim == 3 and shape[2] == 1:
        images = images[..., None]
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        given = f"{images.dtype} {'x'.join(map(str, images.shape))}"
        raise ConfigError(name, given, f"uint8 nx{'x'.join(map(str, shape))}, as the model was trained")
    return np.require(images, requirements=["C", "W"])


def check_windows(name: str, windows: NDArray[Any], shape: Shape) -> NDArray[np.float32]:
    """Give the windows as contiguous float32 (n, *shape). Raises ConfigError on `name`."""
    windows = np.asarray(windows)
    if windows.dtype.kind not in "iuf" or windows.shape[1:] != shape or not np.isfinite(windows).all():
        given = f"{windows.dtype} {'x'.join(map(str, windows.shape))}"
        raise ConfigError(name, given, f"finite numbers nx{'x'.join(map(str, shape))}, as the model was trained")
    return np.require(windows, np.float32, requirements=["C", "W"])


def _read(directory: Path) -> tuple[dict[str, Any], bytes]:
    try:
        meta = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        content = (directory / "model.safetensors").read_bytes()
    except (OSError, ValueError):
        allowed = "a run directory with a readable model.json and model.safetensors"
        raise ConfigError("run", str(directory), allowed) from None
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise ConfigError("run", str(directory), f"a run whose model.json has format {_FORMAT}")
    if meta.get("sha256") != hashlib.sha256(content).hexdigest():
        raise ConfigError("run", str(directory), "a run whose model.json belongs to its model.safetensors")
    return meta, content


def _run_code(directory: Path) -> None:
    """Register what the run's method file holds. Raises ConfigError unless the environment allows its code."""
    import yaml

    from fedssl.assembly import ALLOW_CODE, load_source

    try:
        config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        source, path = str(config["method_source"]), str(config["method_file"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return
    if not source:
        return
    if os.environ.get(ALLOW_CODE) != "1":
        allowed = f"a run of built-in parts; {ALLOW_CODE}=1 runs the method file that this one's model is in"
        raise ConfigError("predict", str(directory), allowed)
    load_source(source, path)


def read_npz(path: Path) -> NDArray[Any]:
    """Give the images of an .npz: the first of `x`, `images`, `x_test`, `test_images`. Raises ConfigError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            name = next((name for name in _ARRAYS if name in arrays), None)
            if name is not None:
                return np.asarray(arrays[name])
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, RuntimeError) as error:
        raise ConfigError("data", str(path), f"a readable .npz ({error})") from None
    raise ConfigError("data", str(path), f"an .npz with an array named {', '.join(_ARRAYS)}")


def open_image(path: Path, mode: str) -> Image.Image:
    """Return an image file's image, upright, in mode `L` or `RGB`. Raises ConfigError naming the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return eight_bits(image, mode)
    except Exception as error:  # a damaged image breaks its decoder in many ways
        reason = " ".join(str(error).split())[:120]
        raise ConfigError("data", str(path), f"a readable image ({reason})") from None


def _read_image(path: Path, shape: Shape) -> NDArray[np.uint8]:
    from PIL import Image

    height, width, channels = shape
    picture = open_image(path, "L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(shape)
