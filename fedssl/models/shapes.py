"""Which samples a network takes."""

from __future__ import annotations

from fedssl.config import ConfigError


def check_image_shape(shape: tuple[int, ...]) -> None:
    """Check that samples are images of sides 8..96 with 1 or 3 channels. Raises ConfigError."""
    if not (len(shape) == 3 and all(8 <= side <= 96 for side in shape[:2]) and shape[2] in (1, 3)):
        allowed = "given images with sides of 8 to 96 pixels and 1 or 3 channels"
        if len(shape) == 2:
            allowed += "; sensor windows go to autoencoder, cnn1d or mlp"
        raise ConfigError("model", _text(shape), allowed)


def check_window_shape(shape: tuple[int, ...]) -> None:
    """Check that samples are sensor windows of 8..4096 steps and 1..512 channels. Raises ConfigError."""
    if not (len(shape) == 2 and 8 <= shape[0] <= 4096 and 1 <= shape[1] <= 512):
        allowed = "given sensor windows of 8 to 4096 steps and 1 to 512 channels"
        if len(shape) == 3:
            allowed += "; pictures go to resnet, resnet18, lenet or mlp"
        raise ConfigError("model", _text(shape), allowed)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
