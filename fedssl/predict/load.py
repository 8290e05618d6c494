"""Loading the final model of a run.

from fedssl.predict.load import load
predict = load("runs/x")
labels, confidences = predict(samples)
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedssl.calibration.base import CALIBRATIONS
from fedssl.config import ConfigError
from fedssl.models.base import MODELS
from fedssl.predict.classifier import Predictor
from fedssl.predict.detector import BoxPredictor
from fedssl.predict.model_file import EXTRA, Meta, read


def load(directory: str | Path) -> Predictor | BoxPredictor:
    """Load what `save_model` wrote: a detector returns boxes. Raises ConfigError naming directory and fault.

    A model of the run's own code (`method_file`) needs `FEDSSL_ALLOW_CODE=1`, which runs that code.
    """
    import torch
    from safetensors.torch import load as from_bytes

    from fedssl.models.build import materialise

    described, content = read(Path(directory))
    if partial := described.get("partial"):
        raise ConfigError("predict", str(directory), f"a run with one whole model; of this one, {partial}")
    if described["model"]["name"] not in MODELS.names() or described["calibration"]["name"] not in CALIBRATIONS.names():
        _run_code(Path(directory))
    tensors = {name: tensor.clone() for name, tensor in from_bytes(content).items()}
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(EXTRA)}
    extra = {name.removeprefix(EXTRA): tensors[name] for name in tensors.keys() - state.keys()}
    known = {item.name: described[item.name] for item in fields(Meta) if item.name in described}
    tuples: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in known.items()}
    meta = Meta(**tuples)
    with torch.device("meta"):
        model = MODELS.create(described["model"]).build(meta.shape, len(meta.class_names))
    model = materialise(model).to(memory_format=torch.channels_last)
    model.load_state_dict(state)
    if meta.task == "detection":
        return BoxPredictor(model.eval(), meta)
    return Predictor(
        model=model.eval(),
        calibration=CALIBRATIONS.create(described["calibration"]),
        extra=extra,
        meta=meta,
    )


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
