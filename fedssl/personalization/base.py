"""What a personalization hook may do: keep tensors at the client, and make the client's own model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from fedssl.data.views.client_data import ClientData
from fedssl.registry import Registry
from fedssl.rng import Rng


@dataclass
class Personal:
    """A client's own model, and numbers about it that are kept beside its scores as `personal_<name>`."""

    model: torch.nn.Module
    facts: dict[str, float] = field(default_factory=dict)


@dataclass
class PersonalizationHook:
    """Does nothing; the base of all personalization hooks."""

    name: ClassVar[str] = ""
    needs_logits: ClassVar[bool] = False
    """Whether the hook trains or mixes classifiers, so that it serves no task without logits."""

    def prepare(self, model: torch.nn.Module) -> None:
        """Look at the network, once in each process and before anything else. Raises ConfigError."""
        del model

    def keeps(self, name: str) -> bool:
        """Say whether the tensor of this name never leaves the client."""
        del name
        return False

    def personalize(self, model: torch.nn.Module, memory: dict[str, Any], data: ClientData, rng: Rng) -> Personal:
        """Give the client's own model; `model` has the global tensors and the client's kept ones, and is scratch."""
        del memory, data, rng
        return Personal(model)


PERSONALIZATIONS: Registry[PersonalizationHook] = Registry("personalization", "fedssl.personalization")
register = PERSONALIZATIONS.register
