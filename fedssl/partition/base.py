"""Who holds which samples, and, apart from that, which of them are labelled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedssl.config import ConfigError, option
from fedssl.data.base import Ints as Ints
from fedssl.registry import Registry
from fedssl.rng import Rng


@dataclass
class Partition(ABC):
    """A rule that deals samples to clients; its fields are the options of `partition=name`."""

    name: ClassVar[str] = ""
    open_world: ClassVar[bool] = False
    """Some classes have no label anywhere; models are scored by the task `open_world`."""

    @abstractmethod
    def assign(self, y: Ints, group: Ints, num_clients: int, rng: Rng) -> list[Ints]:
        """Give each client's samples as sorted, disjoint positions in `y`.

        `y` is the class or -1 where nobody knows it, `group` the natural group or -1.
        Raises ConfigError if the samples cannot be dealt to so many clients.
        """

    def client_groups(self, group: Ints, num_clients: int) -> Ints | None:
        """Give each client's natural group (clients,); None if clients are no groups.

        Such a client validates and is tested on its own group's samples, and `assign` is not asked.
        """
        del group, num_clients
        return None

    def num_seen(self, y: Ints, num_classes: int) -> int:
        """Give k: samples of the classes 0..k-1 alone may be labelled; `y` as in `assign`."""
        del y
        return num_classes


@dataclass
class LabelRule(ABC):
    """A rule that says which samples a client knows the label of."""

    name: ClassVar[str] = ""

    noise: float = option(0.0, "share of the given labels that name another class", low=0, below=1)

    def shares_with_server(self) -> bool:
        """Say whether clients hold the server's samples too."""
        return False

    def for_server(self, y: Ints, num_classes: int, rng: Rng) -> Ints:
        """Give the sorted positions in `y` that the server has, labelled.

        `y` is as in `choose`; samples with y = -1 are never among them.
        """
        del y, num_classes, rng
        return np.zeros(0, np.int64)

    @abstractmethod
    def choose(self, y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> list[Ints]:
        """Give, for each client, those of its positions `parts[k]` that are labelled, sorted.

        Samples with y = -1 are never among them. Of scenes, the last of `num_classes` is no class of the data: it
        stands for annotated pictures without boxes.
        """

    def told(self, y: Ints, num_classes: int, rng: Rng) -> Ints:
        """Give the labels that clients are told: `noise` of the true ones name another class.

        The number of wrong labels is exact; the wrong class is uniform over the others of `num_classes`.
        Raises ConfigError if there are no others.
        """
        generator = rng.numpy("label noise")
        wrong = generator.permutation(len(y))[: round(self.noise * len(y))]
        given = y.copy()
        if not len(wrong):
            return given
        if num_classes < 2:
            raise ConfigError("labels.noise", self.noise, "0 where only one class is labelled")
        given[wrong] = (y[wrong] + generator.integers(1, num_classes, len(wrong))) % num_classes
        return given


PARTITIONS: Registry[Partition] = Registry("partition", "fedssl.partition")
LABELS: Registry[LabelRule] = Registry("labels", "fedssl.partition")


def check_clients(num_samples: int, num_clients: int, min_size: int = 1) -> None:
    """Raise ConfigError unless every client can have `min_size` samples."""
    if num_clients * min_size > num_samples:
        most = num_samples // min_size
        raise ConfigError(
            "clients",
            num_clients,
            f"at most {most}: {num_samples} training samples, {min_size} or more a client",
        )


def by_owner(owner: Ints, num_clients: int) -> list[Ints]:
    """Give each client's sorted positions, from the client that owns each sample."""
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=num_clients))
    return np.split(order, ends[:-1])


def by_group(group: Ints, groups: Ints) -> list[Ints]:
    """Give, for each of `groups`, the sorted positions of its samples."""
    return [np.flatnonzero(group == one) for one in groups]


def ranks(group: Ints, generator: np.random.Generator) -> Ints:
    """Give each member's place, from 0, in a random order within its group."""
    shuffled = generator.permutation(len(group))
    order = shuffled[np.argsort(group[shuffled], kind="stable")]
    ordered = group[order]
    first = np.searchsorted(ordered, ordered)
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - first
    return place
