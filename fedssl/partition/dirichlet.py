"""Class shares drawn from a Dirichlet distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedssl.config import option
from fedssl.partition.base import PARTITIONS, Ints, Partition, by_owner, check_clients
from fedssl.partition.flower import MAX_CLIENTS, flower_parts
from fedssl.rng import Rng


@PARTITIONS.register("dirichlet")
@dataclass
class Dirichlet(Partition):
    """Deals each class by its own Dirichlet draw over clients (Yurochkin et al. 2019, section 4).

    flwr-datasets' DirichletPartitioner, up to 200 clients and where it finds a split; samples of
    unknown class are dealt in equal shares.
    """

    alpha: float = option(0.5, "concentration; small = few classes a client, large = equal shares", above=0)
    min_size: int = option(1, "least number of samples a client", low=1)

    def assign(self, y: Ints, group: Ints, num_clients: int, rng: Rng) -> list[Ints]:
        """Deal the samples; clients short of `min_size` are topped up from the largest."""
        del group
        check_clients(len(y), num_clients, self.min_size)
        owner = np.empty(len(y), np.int64)
        order = rng.numpy("partition").permutation(len(y))
        known, unknown = order[y[order] >= 0], order[y[order] < 0]
        owner[known] = self._deal(y[known], num_clients, rng)
        owner[unknown] = np.arange(len(unknown)) % num_clients
        top_up(owner, num_clients, self.min_size)
        return by_owner(owner, num_clients)

    def _deal(self, y: Ints, num_clients: int, rng: Rng) -> Ints:
        parts = None
        if num_clients <= MAX_CLIENTS and len(y) >= num_clients * self.min_size:
            parts = flower_parts(
                "DirichletPartitioner",
                y,
                num_clients,
                partition_by="y",
                alpha=self.alpha,
                min_partition_size=self.min_size,
                seed=rng.key("dirichlet"),
            )
        if parts is None:
            return dirichlet_owner(y, num_clients, self.alpha, rng.numpy("dirichlet"))
        owner = np.empty(len(y), np.int64)
        owner[np.concatenate(parts)] = np.repeat(np.arange(num_clients), [len(p) for p in parts])
        return owner


def dirichlet_owner(y: Ints, num_clients: int, alpha: float, generator: np.random.Generator) -> Ints:
    """Give the client of each sample; samples of one class go to clients in the order they come."""
    owner = np.empty(len(y), np.int64)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        ends = np.cumsum(_shares(num_clients, alpha, generator)) * len(members)
        owner[members] = np.searchsorted(ends[:-1], np.arange(len(members)), side="right")
    return owner


def _shares(num_clients: int, alpha: float, generator: np.random.Generator) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = generator.dirichlet(np.full(num_clients, alpha))
    if np.isfinite(shares).all() and abs(shares.sum() - 1) < 1e-6:
        return shares
    # At the smallest alphas the draw underflows; its limit is one client that has it all.
    shares = np.zeros(num_clients)
    shares[generator.integers(num_clients)] = 1
    return shares


def top_up(owner: Ints, num_clients: int, min_size: int) -> None:
    """Move samples in place from the largest clients until all have `min_size`."""
    sizes = np.bincount(owner, minlength=num_clients)
    for client in np.flatnonzero(sizes < min_size):
        while sizes[client] < min_size:
            largest = int(sizes.argmax())
            owner[np.flatnonzero(owner == largest)[-1]] = client
            sizes[largest] -= 1
            sizes[client] += 1
