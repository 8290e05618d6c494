"""FedAvg: supervised local training on what labels there are (McMahan et al., AISTATS 2017, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fedssl.config import option
from fedssl.data.batches import batches
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, ServerState, Step, Update
from fedssl.losses.labelled import labelled_losses
from fedssl.methods.base import Method, register
from fedssl.rng import Rng
from fedssl.training.detector import set_anchors
from fedssl.training.sgd import SGD
from fedssl.training.steps import load, snapshot


@register("fedavg")
@dataclass
class FedAvg(Method):
    """Each client takes SGD steps on its labelled samples; a client without labels sends back what it got."""

    lr: float = option(0.03, "learning rate of the local SGD", above=0)
    momentum: float = option(0.9, "momentum of the local SGD, fresh each round", low=0, below=1)
    weight_decay: float = option(5e-4, "L2 penalty on all parameters", low=0)
    schedule: str = option("cosine", "learning rate over rounds", choices=("cosine", "constant"))
    epochs: int = option(1, "local epochs a round", low=1)
    batch_size: int = option(32, "labelled samples a step", low=1)
    epoch_over: str = option(
        "all", "how many labelled samples one epoch draws: as many as there are samples", choices=("all", "labelled")
    )

    tasks: ClassVar[tuple[str, ...]] = ("classification", "sensing", "detection")
    learns_from_labels: ClassVar[bool] = True
    defaults: ClassVar[tuple[str, ...]] = (
        "data=fashion_small",
        "model=resnet",
        "model.width=8",
        "partition=dirichlet",
        "labels=total_count",
    )

    def __init_subclass__(cls, **options: Any) -> None:
        """Leave detection to FedAvg itself: a subclass that can train detectors says so in `tasks` of its own."""
        super().__init_subclass__(**options)
        if "tasks" not in vars(cls):
            cls.tasks = tuple(task for task in cls.tasks if task != "detection")

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Give the initial weights; a detector's anchors fit the server's boxes, if it has any."""
        if data is not None:
            set_anchors(model, data, rng)
        return super().init_server(model, data, rng, num_clients)

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Train on the labelled samples (Algorithm 1, ClientUpdate)."""
        if not len(data.labelled):
            return Update(data.client_id, 0, payload.state), memory
        load(model, payload.state)
        model.train()
        optimizer = self.optimizer(model, step)
        count = data.num_examples if self.epoch_over == "all" else len(data.labelled)
        total = 0.0
        steps = 0
        for epoch in range(self.epochs):
            order = step.rng.numpy("order", epoch)
            parts = list(batches(data.labelled, self.batch_size, math.ceil(count / self.batch_size), order))
            for _, loss in labelled_losses(model, data, parts, step.rng.key("weak", epoch) + steps):
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.item()
                steps += 1
        return Update(data.client_id, len(data.labelled), snapshot(model), metrics={"loss": (total, steps)}), memory

    def optimizer(self, model: torch.nn.Module, step: Step) -> SGD:
        """Give a fresh SGD at this round's learning rate."""
        rate = self.lr
        if self.schedule == "cosine":
            # FixMatch, section 2.4: cos(7 pi k / 16 K), so the last rounds still move. Paper: k counts rounds here.
            rate *= math.cos(7 * math.pi * (step.round_ - 1) / (16 * step.num_rounds))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return SGD(trained, rate, self.momentum, self.weight_decay, nesterov=self.momentum > 0)
