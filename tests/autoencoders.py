"""A small autoencoder and windows for it."""

from __future__ import annotations

import torch

from fedssl.models.autoencoder import PARTS
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng


def network(seed: int = 0) -> torch.nn.Module:
    spec = MODELS.create({"name": "autoencoder", "sizes": [8, 4]})
    return build_model(spec, (8, 2), 3, Rng(seed).torch("weights"))


def parts(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items() if name.startswith(PARTS)}


def windows(count: int) -> torch.Tensor:
    return torch.rand(count, 2, 8, generator=Rng(0).torch("x")) - 0.5
