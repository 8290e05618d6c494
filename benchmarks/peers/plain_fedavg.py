"""FedAvg with nothing but plain SGD on unaugmented samples, as pfl has it: a method file for the comparison of pace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fedssl.config import option
from fedssl.methods.base import Method, Update, register
from fedssl.training.steps import snapshot


@register("plain_fedavg")
@dataclass
class PlainFedAvg(Method):
    """One epoch of SGD over the labelled samples, in their order."""

    lr: float = option(0.03, "learning rate", above=0)
    batch_size: int = option(10, "samples a step", low=1)

    def train_client(self, model: Any, payload: Any, memory: Any, data: Any, step: Any) -> tuple[Update, Any]:
        """Train one epoch."""
        model.load_state_dict(payload.state)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr, fused=True)
        total, steps = 0.0, 0
        for start in range(0, len(data.labelled), self.batch_size):
            index = data.labelled[start : start + self.batch_size]
            loss = torch.nn.functional.cross_entropy(model(data.plain(index)).logits, data.labels(index))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total, steps = total + loss.item(), steps + 1
        return Update(data.client_id, len(data.labelled), snapshot(model), metrics={"loss": (total, steps)}), memory
