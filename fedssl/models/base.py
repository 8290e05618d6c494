"""What a model gives, and the registry of model choices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from fedssl.registry import Registry

if TYPE_CHECKING:
    import torch


class Outputs(NamedTuple):
    """Features (batch, dim) before the head and what the head makes of them: logits (batch, classes)."""

    features: torch.Tensor
    logits: torch.Tensor


class ModelSpec(ABC):
    """A dataclass of a model's options; the network itself has parts `backbone` and `head`."""

    name: ClassVar[str] = ""

    @abstractmethod
    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Give a network for (height, width, channels) images or (steps, channels) windows of sensors.

        It has torch's default initial weights. Its `forward` takes float (batch, channels, height, width) or
        (batch, channels, steps) and gives `Outputs`; tensors before the features are named `backbone.*`, those of the
        classifier `head.*`, of an autoencoder's way back `decoder.*`. Raises ConfigError if it cannot take the shape.
        """


MODELS: Registry[ModelSpec] = Registry("model", "fedssl.models")
register = MODELS.register
