"""FedSTO: federated selective training, then orthogonal training of a whole detector (Kim et al., NeurIPS 2023).

Algorithm 1 after the server's warm-up (see `ssfl`). Phase 1: clients train the backbone alone and send it back. Phase
2: they train and send everything, with a penalty that keeps the weights of neck and head near orthogonal; the server
too. Each round the server then trains all parts on its labels.
Paper: Algorithm 1 has 100 and 150 rounds, table 8 counts 150 and 150; lambda is not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from fedssl.config import Experiment, option
from fedssl.data.views.client_data import ClientData
from fedssl.federation import ServerState, Step, Update
from fedssl.losses.orthogonal import orthogonality, orthogonality_exact, orthogonality_floor, weight_matrices
from fedssl.methods.base import register
from fedssl.methods.ssfl import SSFL
from fedssl.training.detector import Phase

FROZEN = {"neck_and_head": ("neck", "head"), "head": ("head",), "none": ()}
SELECTIVE, WHOLE = 1, 2


@register("fedsto")
@dataclass
class FedSTO(SSFL):
    """Trains backbones first, then everything with orthogonal weights; pseudo-boxes by a moving average."""

    selective_rounds: int = option(
        15, "rounds of phase 1, backbones alone (T1; paper: 100); the rest are phase 2", low=0
    )
    freeze: str = option("neck_and_head", "parts that clients leave alone in phase 1", choices=tuple(FROZEN))
    orthogonal: float = option(1e-4, "weight of the orthogonality penalty in phase 2 (lambda)", low=0)
    orthogonal_iters: int = option(2, "power iterations of a spectral norm", low=1)
    orthogonal_squared: bool = option(False, "square each norm, as the code of SRIP does")

    # A client's own batch norm would have to come from neck and head too, which phase 1 does not send.
    personalizations: ClassVar[tuple[str, ...]] = ("none",)

    def phase(self, step: Step) -> Phase:
        """Give the phase by round."""
        if step.round_ <= self.selective_rounds:
            return Phase(SELECTIVE, FROZEN[self.freeze])
        return Phase(WHOLE)

    def warnings(self, experiment: Experiment, data: ClientData | None) -> list[str]:
        """Tell of a run that ends in phase 1."""
        del data
        left = " and ".join(FROZEN[self.freeze])
        if self.selective_rounds < experiment.rounds or not left:
            return []
        rounds = f"method.selective_rounds={self.selective_rounds} of rounds={experiment.rounds}"
        return [f"{rounds}: clients never train {left}"]

    def penalty(self, model: torch.nn.Module, phase: Phase, draws: torch.Generator) -> torch.Tensor | None:
        """Give lambda R over neck and head in phase 2 (section 4.2)."""
        if phase.number != WHOLE or self.orthogonal == 0:
            return None
        matrices = weight_matrices(model)
        return self.orthogonal * orthogonality(matrices, self.orthogonal_iters, draws, squared=self.orthogonal_squared)

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Train on the server's labels, and note R: whole, and without the floor that it cannot go below."""
        server = super().train_server(server, model, data, updates, step)
        with torch.no_grad():
            matrices = weight_matrices(model)
            value = float(orthogonality_exact(matrices, squared=self.orthogonal_squared))
        noted = {"orthogonality": value, "orthogonality_above_floor": value - orthogonality_floor(matrices)}
        return replace(server, metrics={**server.metrics, **noted})
