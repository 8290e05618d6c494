"""FedAvg + FixMatch: consistency on confident pseudo-labels at every client (Sohn et al., NeurIPS 2020).

Paper: no moving average of the weights is kept (the authors score one with decay 0.999); the mean over clients
takes its place. Weight decay acts on all parameters, the authors' on kernels alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.config import option
from fedssl.data.batches import batches
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, Step, Update
from fedssl.losses.base import Counts, add
from fedssl.losses.pseudo_label import pseudo_label_loss
from fedssl.losses.supervised import cross_entropy
from fedssl.methods.base import register
from fedssl.methods.fedavg import FedAvg
from fedssl.metrics.pseudo_label import telemetry
from fedssl.training.steps import load, snapshot

STRONG = 1 << 32
"""Between the keys of weak and strong views: the authors draw the shift and flip of the two apart."""


@register("fixmatch")
@dataclass
class FixMatch(FedAvg):
    """Labels weak views by the model itself where it is sure, and trains strong views towards them."""

    threshold: float = option(0.95, "least confidence of a pseudo-label (tau)", low=0, high=1)
    batch_size: int = option(8, "labelled samples a step (B); small, since a client has few", low=1)
    ratio: int = option(7, "unlabelled samples for each labelled one in a step (mu)", low=1)
    unlabelled_weight: float = option(1.0, "weight of the unlabelled loss (lambda_u)", low=0)

    tasks: ClassVar[tuple[str, ...]] = ("classification", "sensing")

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Train on labelled and unlabelled samples (Algorithm 1 of the paper, at one client)."""
        # Labelled samples also take part without their label, as in the authors' code.
        pool = np.sort(np.concatenate([data.labelled, data.unlabelled]))
        if not len(pool):
            return Update(data.client_id, 0, payload.state), memory
        load(model, payload.state)
        model.train()
        optimizer = self.optimizer(model, step)
        metrics: Counts = {}
        size = self.batch_size * self.ratio
        num_steps = math.ceil(len(pool) / size)
        for epoch in range(self.epochs):
            order = step.rng.numpy("order", epoch)
            labelled = batches(data.labelled, self.batch_size, num_steps, order)
            for i, index_ulb in enumerate(batches(pool, size, num_steps, order)):
                key = step.rng.key("views", epoch) + i
                loss, counts = self.loss(model, data, next(labelled), index_ulb, key)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                add(metrics, {**counts, "loss": (loss.item(), 1.0)})
        return Update(data.client_id, len(pool), snapshot(model), metrics=metrics), memory

    def loss(
        self,
        model: torch.nn.Module,
        data: ClientData,
        index_lb: NDArray[np.int64],
        index_ulb: NDArray[np.int64],
        key: int,
    ) -> tuple[torch.Tensor, Counts]:
        """Give equation (3) + lambda_u equation (4), and pseudo-label counts.

        One forward pass in training mode for all views, as in the authors' code: batch norm sees them together.
        """
        views = [data.weak(index_lb, key)] if len(index_lb) else []
        views += [data.weak(index_ulb, key), data.strong(index_ulb, key + STRONG)]
        logits = model(torch.cat(views)).logits
        logits_lb = logits[: len(index_lb)]
        logits_ulb_w, logits_ulb_s = logits[len(index_lb) :].chunk(2)
        loss_ulb, pseudo_label, mask = pseudo_label_loss(logits_ulb_w, logits_ulb_s, self.threshold)
        loss = self.unlabelled_weight * loss_ulb
        if len(index_lb):
            loss = loss + cross_entropy(logits_lb, data.labels(index_lb))
        return loss, telemetry(pseudo_label, mask, data.truth(index_ulb))
