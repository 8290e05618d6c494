"""Options of the models for sensor windows; the networks in `networks` are imported when one is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedssl.config import ConfigError, option
from fedssl.models.base import ModelSpec, register
from fedssl.models.shapes import check_window_shape

if TYPE_CHECKING:
    import torch


@register("autoencoder")
@dataclass
class AutoencoderSpec(ModelSpec):
    """Autoencoder with a small classifier on its latent code, as in SemiPFL (authors' size: sizes 256, 128, 64)."""

    sizes: list[int] = option([64, 32, 16], "units (conv: channels) a layer down to the latent code", low=1, high=4096)
    kind: str = option("dense", "layers: fully connected, or convolutions over time", choices=("dense", "conv"))
    hidden: int = option(16, "hidden units of the classifier", low=1, high=4096)

    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Give the network."""
        from fedssl.models.networks.autoencoder import Autoencoder

        check_window_shape(shape)
        if not self.sizes:
            raise ConfigError("model.sizes", self.sizes, "a list of at least one size")
        return Autoencoder((shape[0], shape[1]), num_classes, self.sizes, self.kind, self.hidden)


@register("cnn1d")
@dataclass
class CNN1dSpec(ModelSpec):
    """Three convolutions over time and a global mean (the FCN of Wang et al. 2017, narrower)."""

    width: int = option(
        32, "channels of the first and third convolution; the second has twice as many", low=1, high=1024
    )
    norm: str = option(
        "batch", "normalisation: `batch`, or `group` with 2 groups, no running statistics", choices=("batch", "group")
    )

    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Give the network."""
        from fedssl.models.networks.cnn1d import CNN1d

        check_window_shape(shape)
        return CNN1d(shape[1], num_classes, self.width, self.norm)
