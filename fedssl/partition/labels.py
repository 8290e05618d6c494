"""Rules for which samples are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedssl.config import option
from fedssl.partition.base import LABELS, Ints, LabelRule, ranks
from fedssl.rng import Rng


@LABELS.register("client_rate")
@dataclass
class ClientRate(LabelRule):
    """Labels a share of each class of each client; at least one of each class it holds."""

    rate: float = option(0.1, "share of each class of each client", low=0, high=1)

    def choose(self, y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> list[Ints]:
        """Label round(rate * n) of a client's n samples of a class, one at least if rate > 0."""
        place, group, size = _client_ranks(y, parts, num_classes, rng)
        held = np.bincount(group, minlength=size)
        quota = np.floor(self.rate * held + 0.5).astype(np.int64)
        quota = np.maximum(quota, int(self.rate > 0))
        return _keep(y, parts, place < quota[group])


@LABELS.register("client_count")
@dataclass
class ClientCount(LabelRule):
    """Labels a number of samples a class at each client."""

    count: int = option(10, "labelled samples a class and client; all, if it holds fewer", low=1)

    def choose(self, y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> list[Ints]:
        """Label `count` of a client's samples of a class."""
        place, _, _ = _client_ranks(y, parts, num_classes, rng)
        return _keep(y, parts, place < self.count)


@LABELS.register("some_clients")
@dataclass
class SomeClients(ClientRate):
    """Labels a share of each class at some clients, drawn by the seed; the others know no label at all."""

    fraction: float = option(0.5, "share of the clients that have labels", low=0, high=1)

    def choose(self, y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> list[Ints]:
        """Label as `client_rate` does, at round(fraction * clients) clients."""
        chosen = super().choose(y, parts, num_classes, rng)
        known = rng.numpy("clients with labels").permutation(len(parts))[: round(self.fraction * len(parts))]
        return [labelled if client in known else labelled[:0] for client, labelled in enumerate(chosen)]


@LABELS.register("none")
@dataclass
class NoLabels(LabelRule):
    """Labels nothing at any client."""

    def choose(self, y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> list[Ints]:
        """Give nothing."""
        del y, num_classes, rng
        return [part[:0] for part in parts]


@LABELS.register("server")
@dataclass
class AtServer(NoLabels):
    """Gives the server labelled samples of each class, beside those that the data set reserve; clients know no label.

    Annotated scenes without boxes are a class more. With `rate=1` and `copies=true` it is the centralised reference:
    every label in one place but those that validate.
    """

    count: int = option(10, "labelled samples a class; all, if there are fewer", low=1)
    rate: float = option(0.0, "share of each class instead of `count`, one sample at least; 0 = `count`", low=0, high=1)
    copies: bool = option(False, "clients hold the server's samples too, without their labels")

    def shares_with_server(self) -> bool:
        """Say whether clients hold copies."""
        return self.copies

    def for_server(self, y: Ints, num_classes: int, rng: Rng) -> Ints:
        """Draw `count` samples, or round(rate * n) of n, of each class."""
        known = np.flatnonzero(y >= 0)
        held = np.bincount(y[known], minlength=num_classes)
        share = np.maximum(np.floor(self.rate * held + 0.5).astype(np.int64), 1)
        quota = share if self.rate > 0 else np.full(num_classes, self.count, np.int64)
        place = ranks(y[known], rng.numpy("labels at the server"))
        return known[place < quota[y[known]]]


@LABELS.register("total_count")
@dataclass
class TotalCount(LabelRule):
    """Labels a number of samples a class over all clients together; a client may get none."""

    count: int = option(10, "labelled samples a class in all; all, if there are fewer", low=1)

    def choose(self, y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> list[Ints]:
        """Label `count` samples a class, drawn from the pooled samples of all clients."""
        del num_classes
        pooled = _pooled(y, parts)
        return _keep(y, parts, ranks(y[pooled], rng.numpy("labels")) < self.count)


@LABELS.register("asis")
@dataclass
class AsIs(LabelRule):
    """Keeps what the data says: a sample with a known class is labelled."""

    def choose(self, y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> list[Ints]:
        """Label every sample whose class is known."""
        del num_classes, rng
        return [part[y[part] >= 0] for part in parts]


def _pooled(y: Ints, parts: Sequence[Ints]) -> Ints:
    """Give all clients' positions of known class, client by client."""
    return np.concatenate([part[y[part] >= 0] for part in parts])


def _client_ranks(y: Ints, parts: Sequence[Ints], num_classes: int, rng: Rng) -> tuple[Ints, Ints, int]:
    """Give random places in groups of one client and class, the groups, and how many."""
    known = [int((y[part] >= 0).sum()) for part in parts]
    group = np.repeat(np.arange(len(parts)), known) * num_classes + y[_pooled(y, parts)]
    return ranks(group, rng.numpy("labels")), group, len(parts) * num_classes


def _keep(y: Ints, parts: Sequence[Ints], chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[Ints]:
    """Give each client's chosen positions; `chosen` goes with `_pooled`."""
    known = [part[y[part] >= 0] for part in parts]
    masks = np.split(chosen, np.cumsum([len(part) for part in known])[:-1])
    return [part[mask] for part, mask in zip(known, masks, strict=True)]
