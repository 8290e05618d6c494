"""A mixture of classifiers on one frozen encoder, weighed by the client's own labels (SemiPFL, section 4)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch

from fedssl.config import option
from fedssl.data.views.client_data import ClientData
from fedssl.losses.mixture import mixture_loss
from fedssl.metrics.classification import macro_f1
from fedssl.personalization.base import Personal, PersonalizationHook, register
from fedssl.rng import Rng

if TYPE_CHECKING:
    from fedssl.models.networks.mixture import Mixture

Heads: TypeAlias = "Mapping[str, torch.nn.Module]"


@register("mixture")
@dataclass
class MixtureOfHeads(PersonalizationHook):
    """Mixes several heads on the encoder that the client got, and learns how from its labels.

    The method `semipfl` sends the heads. With any other method there are two: `received`, the model's own, and
    `tuned`, a copy trained on the client's labels. Without labels nothing is trained.
    """

    aggregate: str = option(
        "weights",
        "what the labels decide: `weights` one a head, `finetune` all of the heads, `both`, `last_layer` the last one "
        "of each head, `uniform` nothing; one head alone has no weight to learn",
        choices=("weights", "finetune", "both", "last_layer", "uniform"),
    )
    lr: float = option(0.05, "learning rate of the weights (Adam)", above=0)
    steps: int = option(50, "steps of the weights, each over all labels", low=0)
    epochs: int = option(5, "epochs of the heads (E_c)", low=0)
    head_lr: float = option(1e-3, "learning rate of the heads (Adam)", above=0)
    batch_size: int = option(128, "samples a step of the heads", low=1)
    no_label_weights: str = option(
        "uniform",
        "weights of a client without labels: equal, or by the samples a head was trained on; others begin equal",
        choices=("uniform", "size"),
    )

    needs_logits: ClassVar[bool] = True

    def personalize(self, model: torch.nn.Module, memory: dict[str, Any], data: ClientData, rng: Rng) -> Personal:
        """Give the mixture of the received head and one trained on the client's labels."""
        del memory
        head = model.get_submodule("head")
        heads, sizes = {"received": head}, {"received": 1}
        if len(data.labelled):
            heads["tuned"], sizes["tuned"] = self._tuned(model, head, data, rng), 1
        return self.combine(model, heads, sizes, data, rng, is_first_use=False)

    def combine(
        self,
        model: torch.nn.Module,
        heads: Heads,
        sizes: Mapping[str, int],
        data: ClientData,
        rng: Rng,
        *,
        is_first_use: bool = True,
    ) -> Personal:
        """Give the mixture of copies of `heads`, by name, on the features of `model`, which stays as it is.

        `sizes` are the samples that each head was trained on. Facts: `labels`, `label_classes` among them,
        `weight_NAME`, `entropy` of the weights in nats, and, if this `is_first_use` of the client's labels,
        `uniform_macro_f1` on its test samples before that.
        """
        mixture = self._mixture(model, heads.values())
        index, labels = data.labelled, data.labels(data.labelled)
        facts = {"labels": float(len(index)), "label_classes": float(len(torch.unique(labels)))}
        x, y = data.test()
        if len(y) and is_first_use:
            log_p = mixture.mix(features(model, x)).detach()
            known = (y >= 0).cpu().numpy()
            facts["uniform_macro_f1"] = macro_f1(log_p.cpu().numpy()[known], y.cpu().numpy()[known])
        if len(index):
            with torch.enable_grad():
                self._fit(mixture, features(model, data.plain(index)), labels, rng.at(client=data.client_id))
        elif self.no_label_weights == "size":
            mixture.v.data.copy_(torch.tensor([sizes[name] for name in heads], dtype=torch.float32).log())
        weights = mixture.weights.double()
        facts |= {f"weight_{name}": float(w) for name, w in zip(heads, weights, strict=True)}
        facts["entropy"] = float(torch.special.entr(weights).sum())
        return Personal(mixture, facts)

    def _mixture(self, model: torch.nn.Module, heads: Iterable[torch.nn.Module]) -> Mixture:
        from fedssl.models.networks.mixture import Mixture

        own = [copy.deepcopy(head).requires_grad_(False).eval() for head in heads]
        mixture = Mixture(model, own, torch.zeros(len(own), device=next(model.parameters()).device))
        settle(mixture)
        return mixture

    def _tuned(self, model: torch.nn.Module, head: torch.nn.Module, data: ClientData, rng: Rng) -> torch.nn.Module:
        alone = self._mixture(model, [head])
        with torch.enable_grad():
            x, y = features(model, data.plain(data.labelled)), data.labels(data.labelled)
            self._train_heads(alone, x, y, rng.at(client=data.client_id))
        made: torch.nn.Module = alone.heads[0]
        return made

    def _fit(self, mixture: Mixture, x: torch.Tensor, y: torch.Tensor, rng: Rng) -> None:
        """Train on features x (labels, dim) and classes y (labels,)."""
        if self.aggregate in ("weights", "both") and len(mixture.heads) > 1:
            self._train_weights(mixture, x, y)
        if self.aggregate in ("finetune", "both", "last_layer"):
            self._train_heads(mixture, x, y, rng)

    def _train_weights(self, mixture: Mixture, x: torch.Tensor, y: torch.Tensor) -> None:
        from fedssl.models.networks.mixture import log_mixture, log_probabilities

        log_p = log_probabilities(list(mixture.heads), x).detach()
        v = mixture.v.requires_grad_()
        optimizer = torch.optim.Adam([v], lr=self.lr)
        for _ in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            mixture_loss(log_mixture(log_p, v.log_softmax(dim=0)), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        settle(mixture)

    def _train_heads(self, mixture: Mixture, x: torch.Tensor, y: torch.Tensor, rng: Rng) -> None:
        trained = [p for head in mixture.heads for p in self._parameters(head)]
        groups = [{"params": [p.requires_grad_() for p in trained], "lr": self.head_lr}]
        if self.aggregate == "both" and len(mixture.heads) > 1:
            groups.append({"params": [mixture.v.requires_grad_()], "lr": self.lr})
        optimizer = torch.optim.Adam(groups)
        for epoch in range(self.epochs):
            order = torch.from_numpy(rng.numpy("mixture.order", epoch).permutation(len(y))).to(y.device)
            for index in torch.split(order, self.batch_size):
                # Batch statistics of one sample are no statistics; a frozen layer keeps its own.
                mixture.heads.train(len(index) > 1 and self.aggregate != "last_layer")
                optimizer.zero_grad(set_to_none=True)
                mixture_loss(mixture.mix(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        settle(mixture)

    def _parameters(self, head: torch.nn.Module) -> list[torch.nn.Parameter]:
        linear = [module for module in head.modules() if isinstance(module, torch.nn.Linear)]
        return list((linear[-1] if self.aggregate == "last_layer" and linear else head).parameters())


def settle(mixture: Mixture) -> None:
    """End the training of a mixture: no gradients, no batch statistics; its encoder is not touched."""
    for parameter in (*mixture.heads.parameters(), mixture.v):
        parameter.requires_grad_(False)
        parameter.grad = None
    mixture.heads.eval()


def features(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Give features (batch, dim), float32, of the model in eval mode; its modes are put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            made: torch.Tensor = model(x).features.float()
    finally:
        for module, training in modes:
            module.training = training
    return made
