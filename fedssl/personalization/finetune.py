"""Some more local epochs on the client's own labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fedssl.config import option
from fedssl.data.views.client_data import ClientData
from fedssl.losses.supervised import cross_entropy
from fedssl.personalization.base import Personal, PersonalizationHook, register
from fedssl.rng import Rng


@register("finetune")
@dataclass
class Finetune(PersonalizationHook):
    """Trains the global model on the client's labelled samples (Yu et al. 2020)."""

    epochs: int = option(5, "passes over the labelled samples", low=0)
    lr: float = option(0.01, "learning rate of SGD", above=0)
    batch_size: int = option(
        32, "samples a step; with batch norm, choose it so that no small rest is left of a client's labels", low=1
    )
    momentum: float = option(0.9, "momentum of SGD", low=0, below=1)
    part: str = option("all", "tensors that train", choices=("all", "head"))

    needs_logits: ClassVar[bool] = True

    def personalize(self, model: torch.nn.Module, memory: dict[str, Any], data: ClientData, rng: Rng) -> Personal:
        """Train `model` in place; without labelled samples it stays as it is."""
        del memory
        if len(data.labelled) == 0:
            return Personal(model)
        named = list(model.named_parameters())
        before = [(parameter, parameter.requires_grad) for _, parameter in named]
        modes = [(module, module.training) for module in model.modules()]
        for name, parameter in named:
            parameter.requires_grad_(self._trains(name))
        try:
            with torch.enable_grad():
                self._train(model, data, rng.at(client=data.client_id))
        finally:
            for parameter, requires_grad in before:
                parameter.requires_grad_(requires_grad)
                parameter.grad = None
            for module, training in modes:
                module.training = training
        return Personal(model)

    def _trains(self, name: str) -> bool:
        return self.part == "all" or name.startswith("head.")

    def _train(self, model: torch.nn.Module, data: ClientData, rng: Rng) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)
        for epoch in range(self.epochs):
            order = rng.numpy("finetune.order", epoch).permutation(data.labelled)
            key = rng.key("finetune.weak", epoch)
            for start in range(0, len(order), self.batch_size):
                index = order[start : start + self.batch_size]
                # Batch statistics of one sample are no statistics; a frozen backbone keeps its own.
                model.train(len(index) > 1 and self.part == "all")
                loss = cross_entropy(model(data.weak(index, key)).logits, data.labels(index))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
