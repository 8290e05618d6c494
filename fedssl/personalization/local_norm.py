"""Every client its own batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedssl.config import ConfigError
from fedssl.personalization.base import PersonalizationHook, register


@register("local_norm")
@dataclass
class LocalNorm(PersonalizationHook):
    """Shares all but batch normalisation: its weights, biases and statistics never leave the client.

    Source: FedBN (Li et al., ICLR 2021, Algorithm 1). A server that trains too keeps its own, and a client begins with
    those.
    """

    # No field: what the network looks like is no option.
    _kept = frozenset[str]()

    def prepare(self, model: torch.nn.Module) -> None:
        """Find the tensors of batch normalisation. Raises ConfigError on `personalization` if there are none."""
        norms = torch.nn.modules.batchnorm._BatchNorm
        layers = [(name, module) for name, module in model.named_modules() if isinstance(module, norms)]
        self._kept = frozenset(f"{name}.{own}" for name, module in layers for own in module.state_dict())
        if not self._kept:
            allowed = f"another one: {type(model).__name__} as configured has no batch normalisation"
            raise ConfigError("personalization", self.name, allowed)

    def keeps(self, name: str) -> bool:
        """Keep what `prepare` found."""
        return name in self._kept
