"""Base classifiers for users, trained on the server's own samples in each user's code (SemiPFL, figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fedssl.data.views.client_data import ClientData
from fedssl.federation import State
from fedssl.losses.reconstruction import similar, similar_sets
from fedssl.models.autoencoder import encode, load_autoencoder
from fedssl.models.build import initialise
from fedssl.rng import Rng

SIZES, PASSED, TOTALS, WIDENED = "sizes", "passed", "totals", "widened"
"""Beside a user's base models `M.tensor`: samples that each learned from, 0 where no model is; those of each domain
that pass the filter as it is set; all; times widened (1,)."""
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
        """Return each user's base models and their sizes.

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
                order = self._order(len(y), rng.at(client=user))
                kept, widened = similar_sets(error, y, domain, self.tau, self.filter, order, self.batch_size)
                sets += [_Set(user, m, codes[index], y[index]) for m, index in kept.items()]
                sizes = [len(kept.get(m, ())) for m in range(len(totals))]
                found[user] = {
                    SIZES: torch.tensor(sizes, device=y.device),
                    PASSED: self._passed(error, domain, order, len(totals)),
                    TOTALS: totals.clone(),
                    WIDENED: torch.tensor([widened], device=y.device),
                }
            starts = [self._start(model, one, last, rng) for one in sets]
            for one, state in zip(sets, self._fit(sets, starts, rng), strict=True):
                found[one.user] |= {f"{one.domain}.{name}": tensor for name, tensor in state.items()}
        return found

    def _order(self, count: int, rng: Rng) -> torch.Tensor | None:
        return torch.from_numpy(rng.numpy("filter order").permutation(count)) if self.filter == "batch" else None

    def _passed(
        self, error: torch.Tensor, domain: torch.Tensor, order: torch.Tensor | None, count: int
    ) -> torch.Tensor:
        """Count the samples of each domain that pass, before a set is left out or the filter is widened."""
        if order is not None:
            error, domain = error[order.to(error.device)], domain[order.to(domain.device)]
        passes = [similar(error[domain == m], self.tau, self.filter, self.batch_size) for m in range(count)]
        return torch.stack([one.sum() for one in passes])

    def _start(self, model: torch.nn.Module, one: _Set, last: Mapping[int, State], rng: Rng) -> State:
        """Return first weights: this user's last of the domain, or those that all users and rounds share."""
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


def filter_facts(state: State) -> dict[str, float]:
    """Return `kept_M`, the share of each domain that passes a user's filter, and `fallback`, its widenings."""
    shares = state[PASSED].double() / state[TOTALS]
    return {**{f"kept_{m}": share for m, share in enumerate(shares.tolist())}, "fallback": float(state[WIDENED])}


def kept_shares(made: Sequence[State]) -> dict[str, float]:
    """Return the users' mean share of each domain that passes, and how many of them needed a wider filter."""
    if not made:
        return {}
    shares = torch.stack([state[PASSED].double() / state[TOTALS] for state in made]).mean(dim=0)
    widened = sum(bool(state[WIDENED]) for state in made)
    return {**{f"kept_{m}": share for m, share in enumerate(shares.tolist())}, "fallbacks": float(widened)}
