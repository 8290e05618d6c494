"""FedAvg with nothing but plain SGD on unaugmented samples, as pfl has it: a method file for the comparison of pace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fedssl.config import option
from fedssl.methods.base import Method, Update, register
from fedssl.training.sgd import SGD
from fedssl.training.steps import load, snapshot


@register("plain_fedavg")
@dataclass
class PlainFedAvg(Method):
    """One epoch of SGD over the labelled samples, in their order."""

    lr: float = option(0.03, "learning rate", above=0)
    batch_size: int = option(10, "samples a step", low=1)

    def train_client(self, model: Any, payload: Any, memory: Any, data: Any, step: Any) -> tuple[Update, Any]:
        """Train one epoch."""
        del step
        load(model, payload.state)
        model.train()
        optimizer = SGD(model.parameters(), self.lr)
        total, pool, size = 0.0, data.labelled, self.batch_size
        parts = [pool[start : start + size] for start in range(0, len(pool), size)]
        for x, y in zip(data.plain_batches(parts), data.label_batches(parts), strict=True):
            loss = torch.nn.functional.cross_entropy(model(x).logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        return Update(data.client_id, len(pool), snapshot(model), metrics={"loss": (total, len(parts))}), memory
