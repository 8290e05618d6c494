"""A network that generates another network's tensors from a learned embedding of each user."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedssl.models import build

CENTRED_SCALE = 0.1
"""By `centred`, how much smaller than torch's the first weights of the last layer are."""


def embedding_size(num_users: int) -> int:
    """Give E = int(1 + N / 4) (pFedHN, Shamsian et al. 2021, authors' code)."""
    return int(1 + num_users / 4)


class HyperNetwork(nn.Module):
    """h(alpha; theta): an embedding of a user, linear, `layers` times [ReLU, linear], and one linear map a tensor.

    The maps stand as one weight (total, hidden) and bias (total,). A row (total,) holds the generated tensors one
    after the other in the order of their names; `shapes` says which tensors those are.
    """

    def __init__(self, num_users: int, shapes: Mapping[str, torch.Size], hidden: int = 100, layers: int = 3) -> None:
        super().__init__()
        self.shapes = {name: torch.Size(shapes[name]) for name in sorted(shapes)}
        size = embedding_size(num_users)
        self.embedding = nn.Embedding(num_users, size)
        deeper = [layer for _ in range(layers) for layer in (nn.ReLU(), nn.Linear(hidden, hidden))]
        self.trunk = nn.Sequential(nn.Linear(size, hidden), *deeper)
        self.output = nn.Linear(hidden, sum(math.prod(shape) for shape in self.shapes.values()))

    @classmethod
    def over(cls, state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> HyperNetwork:
        """Give the network whose tensors are those of `state` themselves, not copies: a step changes them in place."""
        layers = sum(name.startswith("trunk.") for name in state) // 2 - 1
        with torch.device("meta"):
            network = cls(len(state["embedding.weight"]), shapes, state["output.weight"].shape[1], layers)
        network.load_state_dict(state, assign=True)
        return network

    def forward(self, users: Tensor) -> Tensor:
        """Give the rows of users (C,): (C, total)."""
        return self.from_embeddings(self.embedding(users))

    def from_embeddings(self, alphas: Tensor) -> Tensor:
        """Give the rows of embeddings (C, E): (C, total)."""
        rows: Tensor = self.output(self.trunk(alphas))
        return rows

    @torch.no_grad()
    def generate(self, users: Tensor) -> Tensor:
        """Give the rows of users (C,), one by one: a user's bits do not depend on who else is asked for."""
        rows = [self.from_embeddings(alpha) for alpha in self.embedding(users).split(1)]
        return torch.cat(rows) if rows else self.output.bias.new_zeros(0, len(self.output.bias))

    def rows_to_states(self, rows: Tensor) -> list[dict[str, Tensor]]:
        """Cut rows (C, total) into named tensors, which are views of them. Raises ValueError for another length."""
        total = self.output.out_features
        if rows.dim() != 2 or rows.shape[1] != total:
            raise ValueError(f"rows have shape {tuple(rows.shape)}, not (users, {total})")
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        return [
            {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), row.split(sizes), strict=True)}
            for row in rows
        ]

    def state_to_row(self, state: Mapping[str, Tensor]) -> Tensor:
        """Give the row of named tensors: (total,). Raises ValueError if names or shapes differ from the generated."""
        if state.keys() != self.shapes.keys():
            name = min(state.keys() ^ self.shapes.keys())
            raise ValueError(f"{name} is {'missing' if name in self.shapes else 'not a generated tensor'}")
        for name, shape in self.shapes.items():
            if state[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(shape)}")
        return torch.cat([state[name].detach().reshape(-1) for name in self.shapes])


def initialise(
    network: HyperNetwork, generator: torch.Generator, how: str = "default", start: Mapping[str, Tensor] | None = None
) -> None:
    """Draw first weights: torch's own (`default`), or `centred` on the tensors `start`.

    `centred` makes `start` the bias of the last layer and its weights smaller, so that each user begins near a network
    that can train. Raises ValueError if `start` is missing or does not fit.
    """
    build.initialise(network, generator)
    if how == "centred":
        if start is None:
            raise ValueError("how='centred' needs the tensors to begin with")
        with torch.no_grad():
            network.output.weight.mul_(CENTRED_SCALE)
            network.output.bias.copy_(network.state_to_row(start))
    elif how != "default":
        raise ValueError(f"how={how!r} is not centred or default")
