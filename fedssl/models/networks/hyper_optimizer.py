"""The step of a hyper-network towards what its users trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from fedssl.models.networks.hypernetwork import HyperNetwork

_EMBEDDING = "embedding.weight"


@dataclass(frozen=True)
class HyperOptimizer:
    """One step for a whole cohort: a vector-Jacobian product with cotangent generated - trained (as pFedHN's authors).

    theta's gradient is the `mean` or `sum` over the cohort, an embedding's that of its own user; both are clipped by
    their joint norm (`clip`, 0 = not at all). Embeddings of users outside the cohort keep their bits.
    """

    how: str = "mean"
    clip: float = 50.0
    lr: float = 1e-3
    weight_decay: float = 0.0
    optimizer: str = "adam"
    momentum: float = 0.0

    def moments(self, network: HyperNetwork) -> dict[str, Tensor]:
        """Give the optimiser's tensors before its first step; `step` changes them in place."""
        kinds = ("first", "second") if self.optimizer == "adam" else ("velocity",) if self.momentum else ()
        named = [(name, parameter.detach()) for name, parameter in network.named_parameters()]
        made = {f"{kind}.{name}": torch.zeros_like(tensor) for kind in kinds for name, tensor in named}
        if self.optimizer == "adam":
            # Each has its own count: an embedding's bias correction is by its own steps.
            made["steps.theta"] = torch.zeros(len(named) - 1)
            made["steps.users"] = torch.zeros(network.embedding.num_embeddings)
        return made

    def step(
        self, network: HyperNetwork, users: Tensor, sent: Tensor | None, trained: Tensor, moments: dict[str, Tensor]
    ) -> dict[str, float]:
        """Change network and `moments` in place; give means and norms of what was done, nothing without users.

        `users` (C,); `trained` rows (C, total) came back; `sent` are the rows as generated, None = those of now (the
        gradient of the distance also for answers that come late). Raises ValueError if the rows do not fit.
        """
        if not len(users):
            return {}
        generated = network.generate(users) if sent is None else sent
        if generated.shape != trained.shape or len(trained) != len(users):
            raise ValueError(f"{tuple(generated.shape)} generated and {tuple(trained.shape)} trained of {len(users)}")
        delta = generated - trained
        touched, theta, alphas = self._gradients(network, users, delta)
        norm = torch.stack([torch.linalg.vector_norm(part) for part in (*theta, alphas)]).norm().item()
        if self.clip and norm > self.clip:
            torch._foreach_mul_([*theta, alphas], self.clip / norm)
        self._apply(network, touched.tolist(), [*theta, *alphas], moments)
        distance = torch.linalg.vector_norm(delta, dim=1)
        share = distance / torch.linalg.vector_norm(generated, dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
        return {"delta": distance.mean().item(), "delta_share": share.mean().item(), "gradient": norm}

    def _gradients(
        self, network: HyperNetwork, users: Tensor, delta: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Give the users met, the gradients of theta and those of the users' embeddings, in one backward pass."""
        touched, place = torch.unique(users, return_inverse=True)
        with torch.enable_grad():
            alphas = network.embedding.weight.detach()[touched].requires_grad_()
            rows = network.from_embeddings(alphas[place])
            theta = [parameter for name, parameter in network.named_parameters() if name != _EMBEDDING]
            count = len(users) if self.how == "mean" else 1
            *made, of_alphas = torch.autograd.grad(rows, [*theta, alphas], grad_outputs=delta / count)
        return touched, tuple(made), of_alphas * count

    @torch.no_grad()
    def _apply(
        self, network: HyperNetwork, touched: list[int], gradients: list[Tensor], moments: dict[str, Tensor]
    ) -> None:
        def parts(kind: str) -> list[Tensor]:
            tensors = [moments[f"{kind}.{name}"] for name in names]
            return [*tensors, *(moments[f"{kind}.{_EMBEDDING}"][user] for user in touched)]

        named = {name: parameter.detach() for name, parameter in network.named_parameters()}
        names = [name for name in named if name != _EMBEDDING]
        tensors = [*(named[name] for name in names), *(named[_EMBEDDING][user] for user in touched)]
        rest: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "maximize": False, "fused": True}
        if self.optimizer == "adam":
            counts = [*moments["steps.theta"], *(moments["steps.users"][user] for user in touched)]
            rest |= {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False}
            adam(tensors, gradients, parts("first"), parts("second"), [], counts, **rest)
        else:
            velocity: list[Tensor | None] = [*parts("velocity")] if self.momentum else [None] * len(tensors)
            rest |= {"momentum": self.momentum, "dampening": 0.0, "nesterov": False}
            sgd(tensors, gradients, velocity, **rest)
