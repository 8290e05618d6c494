"""Seen classes that every client has labels of, and unseen ones that all or only some clients hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedssl.config import ConfigError, option
from fedssl.partition.base import PARTITIONS, Ints, Partition, by_owner, check_clients
from fedssl.partition.dirichlet import dirichlet_owner
from fedssl.rng import Rng


@PARTITIONS.register("open_world")
@dataclass
class OpenWorld(Partition):
    """The setting of FedoSSL (Zhang et al. 2023, section 5.1): labels exist of the first classes alone.

    Class numbers run seen, shared, private: every client holds all seen and shared unseen classes, and one group of the
    private ones. CIFAR-10: 0-5, 6, and a group each of 7, 8, 9. No two clients hold the same sample.
    """

    open_world: ClassVar[bool] = True

    seen_ratio: float = option(0.6, "share of the classes that have labels; at least one, not all", above=0, below=1)
    groups: int = option(3, "groups of private unseen classes, as many classes as the shared ones each", low=1)
    seen_alpha: float = option(0.0, "Dirichlet concentration of seen classes over clients; 0 = equal shares", low=0)
    layout: str = option(
        "disjoint",
        "`disjoint`: client i holds private group i mod groups; `released` (authors' code): neighbours share one",
        choices=("disjoint", "released"),
    )

    def assign(self, y: Ints, group: Ints, num_clients: int, rng: Rng) -> list[Ints]:
        """Deal each class in equal disjoint parts to its owners, remainders to the lowest ids."""
        del group
        check_clients(len(y), num_clients)
        num_classes = int(y.max(initial=-1)) + 1
        seen, shared, private = self.kinds_of(num_classes, num_clients)
        owner = np.empty(len(y), np.int64)
        order = rng.numpy("partition").permutation(len(y))
        everyone = np.arange(num_clients)
        # Samples of unknown class (-1) are dealt like a shared class.
        for label in (-1, *seen, *shared):
            members = order[y[order] == label]
            owner[members] = _equal(len(members), everyone)
        for classes, owners in zip(private, self._owners(num_clients, len(private)), strict=True):
            for label in classes:
                members = order[y[order] == label]
                owner[members] = _equal(len(members), owners)
        if self.seen_alpha > 0:
            known = order[(y[order] >= 0) & (y[order] < len(seen))]
            owner[known] = dirichlet_owner(y[known], num_clients, self.seen_alpha, rng.numpy("dirichlet"))
        _check_all_hold(owner, y, len(seen) + len(shared), num_clients)
        return by_owner(owner, num_clients)

    def num_seen(self, y: Ints, num_classes: int) -> int:
        """Give the number of seen classes, of those up to the highest that has samples."""
        del num_classes
        return len(self.kinds_of(int(y.max(initial=-1)) + 1, 1)[0])

    def kinds_of(self, num_classes: int, num_clients: int) -> tuple[Ints, Ints, list[Ints]]:
        """Give the seen classes, the shared unseen ones and the groups of private ones.

        There are at most `num_clients` groups, and no more than classes for them; but two, one of them empty, for a
        single class, which one group for all would make a shared one. Raises ConfigError below two classes.
        """
        if num_classes < 2:
            raise ConfigError("partition", self.name, "another one for training samples of fewer than 2 classes")
        seen = min(max(round(self.seen_ratio * num_classes), 1), num_classes - 1)
        shared = max((num_classes - seen) // (self.groups + 1), 1)
        classes = np.arange(num_classes)
        private = classes[seen + shared :]
        count = min(self.groups, max(len(private), 2), num_clients)
        return classes[:seen], classes[seen : seen + shared], np.array_split(private, count)

    def _owners(self, num_clients: int, count: int) -> list[Ints]:
        clients = np.arange(num_clients)
        if self.layout == "released":
            return np.array_split(clients, count)
        return [clients[clients % count == place] for place in range(count)]


def _equal(count: int, owners: Ints) -> Ints:
    """Give an owner for each of `count` samples, in runs that differ by one at most."""
    return np.repeat(owners, [len(part) for part in np.array_split(np.arange(count), len(owners))])


def _check_all_hold(owner: Ints, y: Ints, num_common: int, num_clients: int) -> None:
    if len(np.unique(owner)) < num_clients:
        most = int(np.bincount(y[(y >= 0) & (y < num_common)], minlength=1).max())
        allowed = f"at most {most}, the samples of the largest class that all clients hold: one has no sample"
        raise ConfigError("clients", num_clients, allowed)
