"""The frozen leading part of a network, and the part behind it that trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedssl.models.base import Outputs
from fedssl.runtime import as_float32, autocast, precision_of


@dataclass(frozen=True)
class CutNetwork:
    """A network cut in two: `trunk` is fixed and needs no graph, `top` (with the head) trains."""

    model: torch.nn.Module
    layers: int

    @property
    def _backbone(self) -> torch.nn.Sequential:
        backbone = self.model.backbone
        assert isinstance(backbone, torch.nn.Sequential)
        return backbone

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps behind the trunk; the images themselves without one."""
        if not self.layers:
            return x
        with torch.no_grad(), autocast(precision_of(self.model), x.device):
            maps: torch.Tensor = self._backbone[: self.layers](x)
        return maps

    def top(self, maps: torch.Tensor) -> Outputs:
        """Return features and logits from the trunk's maps."""
        with autocast(precision_of(self.model), maps.device):
            features = self._backbone[self.layers :](maps)
            made: Outputs = as_float32(Outputs(features, self.model.head(features)))  # type: ignore[operator]
        return made

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that train: all but the frozen part's."""
        return [*self._backbone[self.layers :].parameters(), *self.model.head.parameters()]  # type: ignore[union-attr]

    def buffers(self) -> list[torch.Tensor]:
        """Copy the top's buffers."""
        return [buffer.clone() for buffer in self._backbone[self.layers :].buffers()]

    def restore(self, buffers: list[torch.Tensor]) -> None:
        """Put back what `buffers` gave."""
        with torch.no_grad():
            for buffer, kept in zip(self._backbone[self.layers :].buffers(), buffers, strict=True):
                buffer.copy_(kept)

    def train(self, *, trunk: bool) -> None:
        """Set the top to training mode; the trunk's batch norm uses its running statistics unless `trunk`."""
        self.model.train()
        if not trunk:
            self._backbone[: self.layers].eval()


def trunk_layers(model: torch.nn.Module) -> int:
    """Return the number of modules of the backbone before its last stage; 0 for a network without stages."""
    return int(getattr(model, "trunk_layers", 0))


def is_top(name: str, layers: int) -> bool:
    """Return whether a tensor belongs to the part behind the trunk."""
    part, _, rest = name.partition(".")
    return part != "backbone" or int(rest.partition(".")[0]) >= layers
