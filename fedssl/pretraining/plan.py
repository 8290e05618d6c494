"""What a pre-training works on: images, network, options."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.assembly import split_of
from fedssl.config import ConfigError, Experiment
from fedssl.data.base import SOURCES, Dataset
from fedssl.data.cache import open_dataset
from fedssl.models.base import MODELS
from fedssl.partition.split import Split
from fedssl.pretraining.settings import Pretraining
from fedssl.runtime import choose_device, resolve_precision

_FORMAT = 1
_HEAD_AND_START = ("head", "weights", "weights_sha256", "pretrain_epochs")
_WITHOUT_EFFECT = ("score_every", "threads")


@dataclass(frozen=True)
class Plan:
    """A pre-training of `model`'s backbone on `dataset.train.x[index]`; `index` is int64, sorted."""

    dataset: Dataset
    index: NDArray[np.int64]
    flip: bool
    model: dict[str, Any]
    settings: Pretraining
    seed: int
    precision: str
    device: torch.device

    def identity(self) -> str:
        """Give a text that is equal for pre-trainings that give the same weights."""
        settings = dataclasses.asdict(self.settings)
        return json.dumps(
            {
                "format": _FORMAT,
                "data": self.dataset.key,
                "index": hashlib.sha256(self.index.tobytes()).hexdigest(),
                "model": self.model,
                **{name: value for name, value in settings.items() if name not in _WITHOUT_EFFECT},
                "seed": self.seed,
                "precision": self.precision,
            },
            sort_keys=True,
        )


def plan(experiment: Experiment, settings: Pretraining) -> Plan:
    """Decode the data and choose the images. Raises ConfigError, also if there are fewer than 2 of them.

    The network must be one that can begin with the weights.
    """
    fit = [name for name in MODELS.names() if hasattr(MODELS.get(name), "weights")]
    if experiment.model["name"] not in fit:
        raise ConfigError("model", experiment.model["name"], f"one that can begin with weights: {', '.join(fit)}")
    device = choose_device(experiment.device)
    source = SOURCES.create(experiment.data)
    dataset = open_dataset(source)
    index = np.arange(len(dataset.train))
    if settings.images != "all":
        index = _held(split_of(experiment, dataset), labelled=settings.images == "federated_pool")
    if len(index) < 2:
        raise ConfigError("images", settings.images, f"a choice of at least 2 images, not {len(index)}")
    return Plan(
        dataset=dataset,
        index=index,
        flip=source.flip,
        # The head and the weights to begin with take no part.
        model={key: value for key, value in experiment.model.items() if key not in _HEAD_AND_START},
        settings=settings,
        seed=experiment.seed,
        precision=resolve_precision(experiment.precision, device),
        device=device,
    )


def _held(split: Split, *, labelled: bool) -> NDArray[np.int64]:
    clients = [split.client(client) for client in range(split.num_clients)]
    parts = [client.unlabelled for client in clients]
    if labelled:
        parts += [client.labelled for client in clients]
    return np.unique(np.concatenate(parts))
