"""Options of the models for images; the networks in `networks` are imported when one is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedssl.config import option
from fedssl.models.base import ModelSpec, register
from fedssl.models.shapes import check_image_shape, check_window_shape

if TYPE_CHECKING:
    import torch

_HEADS = ("linear", "cosine")
_HEAD_DOC = "classifier: `linear`, or `cosine`: 10 cos(feature, class vector) without bias"
_NORMS = ("batch", "group")
_NORM_DOC = "normalisation: `batch`, or `group` with 2 groups, which keeps no running statistics"


@dataclass
class Pretrained(ModelSpec):
    """A model that can begin with trained weights in its backbone."""

    weights: str = option(
        "",
        "backbone to begin with: a file of `fedssl pretrain`; `auto` trains one; empty: random",
        path=True,
        words=("auto",),
        local=True,
    )
    weights_sha256: str = option("", "hash that the file must have; filled in when a run begins", local=True)
    pretrain_epochs: int = option(5, "epochs of the pre-training that `weights=auto` does", low=1)


@register("resnet")
@dataclass
class ResNetSpec(Pretrained):
    """CIFAR-style residual network of any width, four stages (He et al. 2016, section 4.2)."""

    width: int = option(16, "channels of the first of four stages; each next one doubles", low=1, high=1024)
    blocks: int = option(1, "basic blocks a stage", low=1, high=32)
    norm: str = option("batch", _NORM_DOC, choices=_NORMS)
    head: str = option("linear", _HEAD_DOC, choices=_HEADS)

    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Give the network."""
        from fedssl.models.networks.resnet import ResNet

        check_image_shape(shape)
        return ResNet(shape[2], num_classes, self.width, self.blocks, self.norm, self.head)


@register("resnet18")
@dataclass
class ResNet18Spec(Pretrained):
    """ResNet-18 for small images: `resnet` of width 64, 2 blocks (He et al. 2016, table 1)."""

    norm: str = option("batch", _NORM_DOC, choices=_NORMS)
    head: str = option("linear", _HEAD_DOC, choices=_HEADS)

    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Give the network."""
        return ResNetSpec(width=64, blocks=2, norm=self.norm, head=self.head).build(shape, num_classes)


@register("lenet")
@dataclass
class LeNetSpec(ModelSpec):
    """LeNet-5 with ReLU and max-pooling (LeCun et al. 1998, figure 2): 62 thousand parameters."""

    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Give the network."""
        from fedssl.models.networks.lenet import LeNet

        check_image_shape(shape)
        return LeNet(shape, num_classes)


@register("mlp")
@dataclass
class MLPSpec(ModelSpec):
    """Fully connected, for images and sensor windows; the default is the 2NN of McMahan et al. 2017, section 3."""

    hidden: int = option(200, "units a hidden layer", low=1, high=65536)
    layers: int = option(2, "hidden layers", low=1, high=64)

    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Give the network."""
        from fedssl.models.networks.mlp import MLP

        (check_window_shape if len(shape) == 2 else check_image_shape)(shape)
        return MLP(shape, num_classes, self.hidden, self.layers)
