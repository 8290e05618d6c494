"""Autoencoder of sensor windows, with a classifier on its code."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fedssl.models.base import Outputs

_KERNEL = 5


class BaseClassifier(nn.Sequential):
    """Batch norm, dense, ReLU, batch norm, dense: latent codes (batch, latent) to logits (authors' code of SemiPFL)."""

    def __init__(self, latent: int, hidden: int, num_classes: int) -> None:
        layers: list[tuple[str, nn.Module]] = [
            ("norm1", nn.BatchNorm1d(latent)),
            ("dense", nn.Linear(latent, hidden)),
            ("relu", nn.ReLU()),
            ("norm2", nn.BatchNorm1d(hidden)),
            ("output", nn.Linear(hidden, num_classes)),
        ]
        super().__init__(OrderedDict(layers))


class Autoencoder(nn.Module):
    """Encoder `backbone` with a linear code, mirrored `decoder` that ends in tanh, classifier `head`.

    Inputs are (batch, channels, steps), within -1..1 if they are to be reconstructed. The autoencoder's tensors are
    those named `backbone.*` and `decoder.*`.
    """

    def __init__(
        self, shape: tuple[int, int], num_classes: int, sizes: Sequence[int], kind: str = "dense", hidden: int = 16
    ) -> None:
        super().__init__()
        make = _dense if kind == "dense" else _convolutional
        self.backbone, self.decoder = make(shape, sizes)
        self.head = BaseClassifier(sizes[-1], hidden, num_classes)
        self.trunk_layers = 0

    def forward(self, x: Tensor) -> Outputs:
        """Give codes (batch, latent) and logits."""
        code = self.backbone(x)
        return Outputs(code, self.head(code))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Give the reconstruction a(x), shaped as x, within -1..1."""
        made: Tensor = self.decoder(self.backbone(x))
        return made

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """Give each sample's mean of (x - a(x))^2 over its inputs: (batch,)."""
        return (x - self.reconstruct(x)).square().mean(dim=(1, 2))


class _Flatten(nn.Module):
    """(batch, channels, steps) to (batch, steps * channels): all channels of the first step, then the next."""

    def forward(self, x: Tensor) -> Tensor:
        """Give the flat windows."""
        return x.transpose(1, 2).flatten(1)


class _Unflatten(nn.Module):
    """The inverse of `_Flatten`."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Give windows (batch, channels, steps)."""
        return x.reshape(len(x), *self.shape).transpose(1, 2)


def _dense(shape: tuple[int, int], sizes: Sequence[int]) -> tuple[nn.Sequential, nn.Sequential]:
    """Give encoder and decoder of fully connected layers."""
    widths = [math.prod(shape), *sizes]
    encoder = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    decoder = [layer for pair in pairwise(widths[::-1]) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(_Flatten(), *encoder[:-1]), nn.Sequential(*decoder[:-1], nn.Tanh(), _Unflatten(shape))


def _convolutional(shape: tuple[int, int], sizes: Sequence[int]) -> tuple[nn.Sequential, nn.Sequential]:
    """Give encoder and decoder of convolutions that halve and double the steps, and one dense layer each."""
    widths, steps = [shape[1], *sizes[:-1]], [shape[0]]
    encoder: list[nn.Module] = []
    for channels_in, channels_out in pairwise(widths):
        encoder += [nn.Conv1d(channels_in, channels_out, _KERNEL, stride=2, padding=_KERNEL // 2), nn.ReLU()]
        steps.append(-(-steps[-1] // 2))
    flat = widths[-1] * steps[-1]
    encoder += [nn.Flatten(), nn.Linear(flat, sizes[-1])]
    decoder: list[nn.Module] = [nn.Linear(sizes[-1], flat), nn.Unflatten(1, (widths[-1], steps[-1]))]
    for (channels_in, channels_out), size in zip(pairwise(widths[::-1]), steps[-2::-1], strict=True):
        decoder += [nn.ReLU(), nn.Upsample(size=size, mode="nearest")]
        decoder.append(nn.Conv1d(channels_in, channels_out, _KERNEL, padding=_KERNEL // 2))
    return nn.Sequential(*encoder), nn.Sequential(*decoder, nn.Tanh())
