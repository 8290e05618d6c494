"""An autoencoder by its named parts: loaded whole, and asked for codes and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("backbone.", "decoder.")


def load_autoencoder(model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put `backbone.*` and `decoder.*` into the model. Raises ValueError unless these are all of them."""
    names = {name for name in model.state_dict() if name.startswith(PARTS)}
    if state.keys() != names:
        raise ValueError(f"these tensors of an autoencoder are missing or too many: {sorted(state.keys() ^ names)}")
    model.load_state_dict(state, strict=False)


def encode(model: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes (n, latent) and reconstruction errors (n,), without gradients."""
    backbone, decoder = model.get_submodule("backbone"), model.get_submodule("decoder")
    with torch.no_grad():
        code = backbone(x).float()
        return code, (x - decoder(code).float()).square().flatten(1).mean(dim=1)
