"""The files of a final model: model.safetensors, and model.json with what is needed to use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.config import ConfigError
from fedssl.data.base import Dataset
from fedssl.data.views.modality import holds_windows
from fedssl.files import write_atomically

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
EXTRA = "extra/"
_FORMAT = 1


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
        """Return what a model has to know of its data set."""
        known = {item.name: getattr(dataset, item.name) for item in fields(cls) if item.name != "task"}
        return cls(**known, task="detection" if dataset.train.holds_boxes else "")


def save_model(
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
    tensors = {**state, **{EXTRA + name: tensor for name, tensor in needed.items()}}
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


def read(directory: Path) -> tuple[dict[str, Any], bytes]:
    """Return the content of model.json and the bytes of model.safetensors. Raises ConfigError."""
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
