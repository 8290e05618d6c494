"""Server only: the server trains on its own labelled samples, and clients do no more than use the model.

The reference that every federation with a server of means must beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from fedssl.config import option
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Average, Memory, Payload, ServerState, State, Step, Update
from fedssl.losses.labelled import labelled_losses
from fedssl.methods.base import Method, register
from fedssl.rng import Rng
from fedssl.training.detector import set_anchors
from fedssl.training.steps import check_server_data, parts_of, snapshot


@register("server_only")
@dataclass
class ServerOnly(Method):
    """Trains one model on the server's labels, with a decoder on its reconstruction too; clients answer nothing."""

    epochs: int = option(5, "passes over the server's samples a round", low=1)
    lr: float = option(1e-3, "learning rate of Adam, fresh each round", above=0)
    batch_size: int = option(128, "samples a step", low=2)
    reconstruction: float = option(
        1.0, "weight of the reconstruction error, where the model has a decoder (model=autoencoder)", low=0
    )

    tasks: ClassVar[tuple[str, ...]] = ("classification", "sensing", "detection")
    takes_average: ClassVar[bool] = False
    defaults: ClassVar[tuple[str, ...]] = (
        "data=imu_synthetic",
        "model=autoencoder",
        "partition=natural",
        "labels=client_rate",
        "labels.rate=0.1",
        "validation=0",
        "participation=0.5",
        "rounds=10",
    )

    def check(self, model: torch.nn.Module, data: ClientData | None, num_clients: int) -> None:
        """Check that the server holds labelled samples."""
        del model, num_clients
        check_server_data(self.name, data)

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Give the initial weights; a detector gets anchors that fit the server's boxes."""
        assert data is not None
        set_anchors(model, data, rng)
        return super().init_server(model, data, rng, num_clients)

    def uplink(self, server: ServerState, payload: Payload, step: Step) -> State:
        """Wait for nothing."""
        del server, payload, step
        return {}

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Do nothing."""
        del model, payload, step
        return Update(data.client_id, 0, {}), memory

    def aggregate(self, server: ServerState, updates: Sequence[Update], step: Step, average: Average) -> ServerState:
        """Leave the state: nobody sent anything."""
        del updates, step, average
        return server

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Train on the server's samples: their supervised loss, and the reconstruction error if there is a decoder."""
        del updates
        assert data is not None
        model.load_state_dict(server.model)
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr, fused=True)
        rebuilds = self.reconstruction > 0 and hasattr(model, "reconstruction_error")
        total, steps = 0.0, 0
        for epoch in range(self.epochs):
            order = step.rng.numpy("server order", epoch).permutation(data.labelled)
            parts = parts_of(order, self.batch_size)
            for x, loss in labelled_losses(model, data, parts, step.rng.key("server weak", epoch)):
                if rebuilds:
                    loss = loss + self.reconstruction * model.reconstruction_error(x).mean()  # type: ignore[operator]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, steps = total + loss.item(), steps + 1
        metrics = {**server.metrics, "server_loss": total / steps} if steps else server.metrics
        return replace(server, model=snapshot(model), metrics=metrics)
