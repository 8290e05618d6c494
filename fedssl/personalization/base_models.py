"""Base classifiers for users, trained on the server's own samples in each user's code (SemiPFL, figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from fedssl.data.views import ClientData
from fedssl.losses.reconstruction import similar_sets
from fedssl.models.build import initialise
from fedssl.models.reconstruct import encode, load_autoencoder
from fedssl.rng import Rng

State: TypeAlias = "dict[str, torch.Tensor]"
SIZES, TOTALS, WIDENED = "sizes", "totals", "widened"
"""Beside a user's base models `M.tensor`: samples kept of each domain, 0 where no model is; all; times widened (1,)."""
_TOGETHER = 8


@dataclass(frozen=True)
class _Set:
    user: int
    domain: int
    codes: torch.Tensor
    y: torch.Tensor


@dataclass(frozen=True)
class BaseModels:
    """Filters the server's samples for each user, and trains one classifier a user and domain on what is left."""

    filter: str
    tau: float
    epochs: int
    lr: float
    batch_size: int

    def train(
        self,
        model: torch.nn.Module,
        data: ClientData,
        domain: torch.Tensor,
        trained: Mapping[int, State],
        last: Mapping[int, State],
        rng: Rng,
    ) -> dict[int, State]:
        """Give each user's base models and their sizes.

        `data` are the server's, `domain` (n,) goes with `data.labelled`; `trained` are the users' autoencoders, frozen;
        `last` the models to begin with, where there are any. `model` is scratch; `rng` is that of the round.
        """
        x, y = data.plain(data.labelled), data.labels(data.labelled)
        totals = torch.bincount(domain)
        users = list(trained)
        found: dict[int, State] = {}
        # A few users at a time bound the memory that their codes take.
        for some in (users[i : i + _TOGETHER] for i in range(0, len(users), _TOGETHER)):
            sets: list[_Set] = []
            for user in some:
                load_autoencoder(model, trained[user])
                codes, error = encode(model, x)
                kept, widened = self._similar(error, y, domain, rng.at(client=user))
                sets += [_Set(user, m, codes[index], y[index]) for m, index in kept.items()]
                sizes = [len(kept.get(m, ())) for m in range(len(totals))]
                found[user] = {
                    SIZES: torch.tensor(sizes, device=y.device),
                    TOTALS: totals.clone(),
                    WIDENED: torch.tensor([widened], device=y.device),
                }
            starts = [self._start(model, one, last, rng) for one in sets]
            for one, state in zip(sets, self._fit(sets, starts, rng), strict=True):
                found[one.user] |= {f"{one.domain}.{name}": tensor for name, tensor in state.items()}
        return found

    def _similar(
        self, error: torch.Tensor, y: torch.Tensor, domain: torch.Tensor, rng: Rng
    ) -> tuple[dict[int, torch.Tensor], int]:
        order = torch.from_numpy(rng.numpy("filter order").permutation(len(y))) if self.filter == "batch" else None
        return similar_sets(error, y, domain, self.tau, self.filter, order, self.batch_size)

    def _start(self, model: torch.nn.Module, one: _Set, last: Mapping[int, State], rng: Rng) -> State:
        """Give first weights: this user's last of the domain, or those that all users and rounds share."""
        head = model.get_submodule("head")
        before = {name: last.get(one.user, {}).get(f"{one.domain}.{name}") for name in head.state_dict()}
        if all(tensor is not None for tensor in before.values()):
            return {name: tensor for name, tensor in before.items() if tensor is not None}
        initialise(head, Rng(rng.seed).torch("base model", one.domain))
        return {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}

    def _fit(self, sets: list[_Set], starts: list[State], rng: Rng) -> list[State]:
        from fedssl.models.networks.cohort import train_classifiers

        def order(b: int, epoch: int) -> torch.Tensor:
            one = sets[b]
            generator = rng.at(client=one.user).numpy(f"base model {one.domain}", epoch)
            return torch.from_numpy(generator.permutation(len(one.y)))

        codes, labels = [one.codes for one in sets], [one.y for one in sets]
        return train_classifiers(
            codes, labels, starts, order, epochs=self.epochs, batch_size=self.batch_size, lr=self.lr
        )
