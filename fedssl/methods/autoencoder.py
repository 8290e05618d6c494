"""FedAvg of an autoencoder on unlabelled windows, with a classifier on its codes.

The classifier is trained where labels are: at the server on its own samples, or at each client on that client's few.
With `head=client personalization=local_only` nothing is shared: an autoencoder and a head for each client alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, ServerState, State, Step, Update
from fedssl.losses.supervised import cross_entropy
from fedssl.methods.base import Method, register
from fedssl.methods.server_only import ServerOnly
from fedssl.rng import Rng
from fedssl.training.steps import check_server_data, load, parts_of, snapshot

HEAD = "head."
_PART = 512


@register("autoencoder")
@dataclass
class FedAutoencoder(Method):
    """Trains the autoencoder at the clients, on all their windows without labels; heads leave the encoder as it is."""

    epochs: int = option(5, "passes over a client's windows a round", low=1)
    lr: float = option(1e-3, "learning rate of the autoencoder's Adam, fresh each round", above=0)
    batch_size: int = option(128, "windows a step, for autoencoder and head", low=2)
    head: str = option("server", "whose labels train the classifier", choices=("server", "client"))
    head_epochs: int = option(5, "passes over the labels a round; the classifier goes on from its last state", low=1)
    head_steps: int = option(50, "least steps of the classifier a round, for clients with few labels", low=0)
    head_lr: float = option(1e-3, "learning rate of the classifier's Adam, fresh each round", above=0)

    tasks: ClassVar[tuple[str, ...]] = ("sensing",)
    defaults: ClassVar[tuple[str, ...]] = ServerOnly.defaults

    def check(self, model: torch.nn.Module, data: ClientData | None, num_clients: int) -> None:
        """Check for a decoder, and for labels of the server's own if it is to train."""
        del num_clients
        if not hasattr(model, "reconstruction_error"):
            raise ConfigError("model", type(model).__name__, f"model=autoencoder for method={self.name}")
        if self.head == "server":
            check_server_data(f"{self.name} with head=server", data)

    def uplink(self, server: ServerState, payload: Payload, step: Step) -> State:
        """Wait for the autoencoder, and for the head if clients train it."""
        del server, step
        return self._sent(payload.state)

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Train the autoencoder on all windows, then perhaps the head on the labelled ones."""
        pool = np.sort(np.concatenate([data.labelled, data.unlabelled]))
        if not len(pool):
            return Update(data.client_id, 0, self._sent(payload.state)), memory
        load(model, payload.state)
        metrics = self.train_autoencoder(model, data, pool, step.rng)
        if self.head == "client":
            metrics |= self.train_head(model, data, step.rng)
        return Update(data.client_id, len(pool), self._sent(snapshot(model)), metrics=metrics), memory

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Train the head on the server's labels, on codes of the encoder that was just averaged."""
        del updates
        if self.head == "client":
            return server
        assert data is not None
        load(model, server.model)
        loss, steps = self.train_head(model, data, step.rng)["head_loss"]
        metrics = {**server.metrics, "head_loss": loss / steps} if steps else server.metrics
        return replace(server, model=snapshot(model), metrics=metrics)

    def train_autoencoder(
        self, model: torch.nn.Module, data: ClientData, pool: NDArray[np.int64], rng: Rng
    ) -> dict[str, tuple[float, float]]:
        """Take Adam steps on the reconstruction error; the last, short batch counts too. Gives (sum, steps) of it."""
        model.train()
        trained = [p for name, p in model.named_parameters() if not name.startswith(HEAD)]
        optimizer = torch.optim.Adam(trained, lr=self.lr, fused=True)
        total, steps = 0.0, 0
        for epoch in range(self.epochs):
            order = rng.numpy("order", epoch).permutation(pool)
            for i in range(0, len(order), self.batch_size):
                loss = model.reconstruction_error(data.plain(order[i : i + self.batch_size])).mean()  # type: ignore[operator]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total, steps = total + loss.item(), steps + 1
        return {"reconstruction": (total, steps)}

    def train_head(self, model: torch.nn.Module, data: ClientData, rng: Rng) -> dict[str, tuple[float, float]]:
        """Take Adam steps on the cross-entropy of the head, the encoder frozen. Gives (sum, steps) of it."""
        index = data.labelled
        if len(index) < 2:
            return {"head_loss": (0.0, 0.0)}
        model.eval()
        with torch.no_grad():
            parts = [index[i : i + _PART] for i in range(0, len(index), _PART)]
            codes = torch.cat([model(data.plain(part)).features for part in parts])
        head, y = model.get_submodule("head"), data.labels(index)
        head.train()
        optimizer = torch.optim.Adam(head.parameters(), lr=self.head_lr, fused=True)
        batches = len(parts_of(np.arange(len(index)), self.batch_size))
        total, steps = 0.0, 0
        for epoch in range(max(self.head_epochs, math.ceil(self.head_steps / batches))):
            order = rng.numpy("head order", epoch).permutation(len(index))
            for part in parts_of(order, self.batch_size):
                rows = torch.from_numpy(part).to(codes.device)
                loss = cross_entropy(head(codes[rows]), y[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, steps = total + loss.item(), steps + 1
        return {"head_loss": (total, steps)}

    def _sent(self, state: State) -> State:
        return {name: t for name, t in state.items() if self.head == "client" or not name.startswith(HEAD)}
