"""Options of the object detector; its network is imported when one is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedssl.config import ConfigError, option
from fedssl.models.base import ModelSpec, register

if TYPE_CHECKING:
    import torch

_STAGES = 4
_CELL = 32
_SIDES = (64, 1280)


@register("detector")
@dataclass
class DetectorSpec(ModelSpec):
    """One-stage detector of three scales in YOLOv5's layout; width 16 is its nano.

    Its large is width 64, depths [3, 6, 9, 3] and neck_depth 3.
    """

    width: int = option(8, "channels of the stem; each of four stages doubles them", low=1, high=256)
    depths: list[int] = option([1, 1, 1, 1], "bottlenecks in each of the backbone's four stages", low=1, high=64)
    neck_depth: int = option(1, "bottlenecks in each of the neck's four blocks", low=1, high=64)

    def build(self, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
        """Return the network; it takes square colour pictures of 64 to 1280 pixels, a multiple of 32."""
        from fedssl.models.networks.detector import Detector

        _check_shape(shape)
        if len(self.depths) != _STAGES:
            raise ConfigError("model.depths", self.depths, f"a list of {_STAGES} depths")
        return Detector(shape[0], num_classes, self.width, self.depths, self.neck_depth)


def _check_shape(shape: tuple[int, ...]) -> None:
    low, high = _SIDES
    side = shape[0]
    if not (shape == (side, side, 3) and side % _CELL == 0 and low <= side <= high):
        allowed = f"given square colour pictures whose side is a multiple of {_CELL} from {low} to {high}"
        raise ConfigError("model", "x".join(map(str, shape)), allowed)
