"""The split of a run: who holds, is told, is validated on and is tested on which samples."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.arrays import stratified
from fedssl.data.base import ABSENT, GLOBALLY_UNSEEN, LOCALLY_UNSEEN, SEEN, Dataset, Indices, Samples
from fedssl.data.cache import cache_directory, replace_whole
from fedssl.partition.base import Ints, LabelRule, Partition, by_group, check_clients
from fedssl.partition.shares import draw_to_shares
from fedssl.rng import Rng

_VERSION = 3
BACKGROUND = -2
"""What a client is told of an annotated scene without boxes."""
_SERVER = ("server_index", "server_label")


def _nothing() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Who holds which samples: client k has `train_index[train_offsets[k]:train_offsets[k + 1]]`.

    All arrays are int64. `label` (what the client was told, -1 if nothing, else a class or `BACKGROUND`) and
    `truth` (-1 unknown) go with `train_index`. `validation_*` index the training split, but nobody trains on them;
    `test_*` index the test split. Clients may share validation and test samples, never training
    samples. `dropped` counts training samples that nobody got. `server_index` (sorted) are training samples of the
    server, none of them in `validation_index`: `server_label`, what it was told, -1 for scenes without boxes.
    """

    train_index: Ints
    train_offsets: Ints
    label: Ints
    truth: Ints
    validation_index: Ints
    validation_offsets: Ints
    test_index: Ints
    test_offsets: Ints
    class_names: tuple[str, ...]
    dropped: int
    server_index: Ints = field(default_factory=_nothing)
    server_label: Ints = field(default_factory=_nothing)

    @property
    def num_clients(self) -> int:
        """Give the number of clients."""
        return len(self.train_offsets) - 1

    @cached_property
    def sha256(self) -> str:
        """Give the hash over names, types, shapes and little-endian bytes of everything stored.

        The server's arrays count only where it has samples.
        """
        digest = hashlib.sha256()
        for name, array in sorted(self._arrays().items()):
            stored = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
            digest.update(f"{name} {stored.dtype.str} {stored.shape}\n".encode())
            digest.update(stored.tobytes())
        return digest.hexdigest()

    @cached_property
    def kinds(self) -> NDArray[np.int8]:
        """Give the kind of each class (classes,).

        SEEN: some training sample truly of the class has a label, maybe at the server; else LOCALLY_UNSEEN: every
        client that has samples has some of it; GLOBALLY_UNSEEN: some clients do; ABSENT: none does.
        """
        client = np.repeat(np.arange(self.num_clients), np.diff(self.train_offsets))
        known = self.truth >= 0
        holds = np.zeros((self.num_clients, len(self.class_names)), bool)
        holds[client[known], self.truth[known]] = True
        holders, most = holds.sum(axis=0), len(np.unique(client))
        kinds = np.where(holders == most, LOCALLY_UNSEEN, GLOBALLY_UNSEEN).astype(np.int8)
        kinds[holders == 0] = ABSENT
        kinds[self.truth[known & (self.label >= 0)]] = SEEN
        kinds[self.server_label[self.server_label >= 0]] = SEEN
        return kinds

    def client(self, client_id: int) -> Indices:
        """Give a client's samples."""
        index = _cut(self.train_index, self.train_offsets, client_id)
        told = _cut(self.label, self.train_offsets, client_id) != -1
        return Indices(
            index[told],
            index[~told],
            _cut(self.validation_index, self.validation_offsets, client_id),
            _cut(self.test_index, self.test_offsets, client_id),
        )

    def server(self) -> Indices:
        """Give the server's samples, all labelled; none, if the data reserve none for it."""
        return Indices(self.server_index, _nothing())

    def given(self, n_train: int) -> Ints:
        """Give the label told for each sample of the training split, -1 or `BACKGROUND` where none was."""
        out = np.full(n_train, -1, np.int64)
        out[self.train_index] = self.label
        out[self.server_index] = self.server_label
        return out

    def save(self, path: Path) -> None:
        """Write the split to a .npz file, whole or not at all. Raises ConfigError on `out`."""
        replace_whole(Path(path), self._write, "out")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read what `save` wrote. Raises ConfigError if the file is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as content:
                arrays = {name: np.asarray(content[name]) for name in content.files}
            stored = str(arrays.pop("sha256"))
            names = tuple(str(name) for name in arrays.pop("class_names"))
            dropped = int(arrays.pop("dropped"))
            split = cls(**arrays, class_names=names, dropped=dropped)
        except Exception as error:  # a damaged zip fails in many ways
            raise ConfigError("split", str(path), f"a readable split file ({error})") from None
        if split.sha256 != stored:
            raise ConfigError("split", str(path), "a split file as it was written (its hash differs)")
        return split

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        arrays = {item.name: np.asarray(getattr(self, item.name)) for item in dataclasses.fields(self)}
        arrays["dropped"] = np.asarray(self.dropped, np.int64)
        if not len(self.server_index):
            for name in _SERVER:  # splits without a server keep their hash
                del arrays[name]
        return arrays

    def _write(self, place: Path) -> None:
        with place.open("wb") as file:
            np.savez_compressed(file, **self._arrays(), sha256=np.asarray(self.sha256))  # type: ignore


def make_split(
    dataset: Dataset,
    partition: Partition,
    labels: LabelRule,
    num_clients: int,
    validation: float,
    *,
    seed: int,
) -> Split:
    """Deal a data set to clients; a pure function of its arguments.

    A stratified share `validation` of the clients' training samples of known class is set aside, the rest is
    partitioned, labelled where the partition's classes may be, and each client is dealt validation and test samples in
    its own class shares, or gets those of its natural group. The server has the samples of its groups to itself.
    Raises ConfigError, on `clients` if they are more than the samples. Annotated scenes without boxes are a class more.
    """
    _check_scenes(dataset, partition, labels)
    rng = Rng(seed)
    y, group = dataset.train.y, dataset.train.group
    free, reserved = _reserve(dataset)
    seen, shared = partition.num_seen(y[free], dataset.num_classes), labels.shares_with_server()
    drawn = free[:0] if shared else _drawn_for_server(dataset, free, labels, seen, rng)
    free = np.setdiff1d(free, drawn, assume_unique=True)
    groups = partition.client_groups(group[free], num_clients)
    offered = free if groups is None else free[np.isin(group[free], groups)]
    strata, _ = _strata(dataset, dataset.train)
    pool = offered[stratified(strata[offered], validation, rng.numpy("validation"))]
    rest = np.setdiff1d(offered, pool, assume_unique=True)
    if shared:
        drawn = _drawn_for_server(dataset, np.setdiff1d(free, pool), labels, seen, rng)
    server, server_label = _told_server(y, reserved, drawn, labels, seen, rng)
    check_clients(len(rest), num_clients)
    if groups is None:
        parts = partition.assign(y[rest], group[rest], num_clients, rng)
    else:
        parts = by_group(group[rest], groups)
    seen, held = partition.num_seen(y[rest], dataset.num_classes), np.concatenate(parts)
    told = _told(dataset, rest, parts, labels, seen, rng)
    val, test = _scored(dataset, pool, [rest[part] for part in parts], groups, rng)
    return Split(
        train_index=rest[held],
        train_offsets=_offsets(parts),
        label=told[held],
        truth=y[rest[held]],
        validation_index=pool[np.concatenate(val)],
        validation_offsets=_offsets(val),
        test_index=np.concatenate(test),
        test_offsets=_offsets(test),
        class_names=dataset.class_names,
        dropped=len(free) - len(pool) - len(held),
        server_index=server,
        server_label=server_label,
    )


def _check_scenes(dataset: Dataset, partition: Partition, labels: LabelRule) -> None:
    """Check that nothing is asked of boxes that is only meant for one class a sample. Raises ConfigError."""
    if not dataset.train.holds_boxes:
        return
    if partition.open_world:
        raise ConfigError("partition", partition.name, "another one: an image has boxes of seen and unseen classes")
    if labels.noise > 0:
        raise ConfigError("labels.noise", labels.noise, "0 for images with boxes, which it does not change")


def _strata(dataset: Dataset, samples: Samples) -> tuple[Ints, int]:
    """Return each sample's class, for annotated scenes without boxes one more, and the number of classes."""
    marked = np.where(samples.background, dataset.num_classes, samples.y)
    return marked, dataset.num_classes + int(samples.holds_boxes)


def _told(dataset: Dataset, index: Ints, parts: Sequence[Ints], labels: LabelRule, seen: int, rng: Rng) -> Ints:
    """Give the label told for each of these training samples, -1 if none; classes below `seen` may have labels."""
    y = dataset.train.y[index]
    marked, num_classes = _classes(dataset, index, seen)
    labelled = np.concatenate(labels.choose(marked, parts, num_classes, rng))
    named = labelled[y[labelled] >= 0]
    told = np.full(len(y), -1, np.int64)
    told[labelled] = BACKGROUND
    told[named] = labels.told(y[named], seen, rng)
    return told


def _classes(dataset: Dataset, index: Ints, seen: int) -> tuple[Ints, int]:
    """Give the classes that label rules go by, -1 where there may be no label, and their number."""
    marked, number = _strata(dataset, dataset.train)
    unseen = (marked >= seen) & ~dataset.train.background
    return np.where(unseen, -1, marked)[index], number


def _drawn_for_server(dataset: Dataset, free: Ints, labels: LabelRule, seen: int, rng: Rng) -> Ints:
    """Give those of the training samples `free` that the rule gives the server."""
    return free[labels.for_server(*_classes(dataset, free, seen), rng)]


def _told_server(y: Ints, reserved: Ints, drawn: Ints, labels: LabelRule, seen: int, rng: Rng) -> tuple[Ints, Ints]:
    """Give the server's samples, sorted, and their labels: of `reserved` the true ones, of `drawn` those told."""
    told, named = y.copy(), drawn[y[drawn] >= 0]
    told[named] = labels.told(y[named], seen, rng)
    server = np.union1d(reserved, drawn)
    return server, told[server]


def _reserve(dataset: Dataset) -> tuple[Ints, Ints]:
    """Give the training samples that clients may have, and the server's own: those of its groups that are labelled."""
    train = dataset.train
    reserved = np.isin(train.group, dataset.server_groups)
    # A scene without boxes has no class, but is labelled: it is all background.
    labelled = train.background | (train.y >= 0)
    return np.flatnonzero(~reserved), np.flatnonzero(reserved & labelled)


def _scored(
    dataset: Dataset, pool: Ints, held: Sequence[Ints], groups: Ints | None, rng: Rng
) -> tuple[list[Ints], list[Ints]]:
    """Give each client's validation samples, as positions in `pool`, and test samples."""
    strata, number = _strata(dataset, dataset.train)
    mine = [strata[index] for index in held]
    if groups is not None:
        val = by_group(dataset.train.group[pool], groups)
        if (dataset.test.group >= 0).any():
            return val, by_group(dataset.test.group, groups)
        if dataset.domain_names:
            return val, [_same_domains(dataset, index) for index in held]
    else:
        val = draw_to_shares(strata[pool], mine, number, rng, "client validation")
    scored, _ = _strata(dataset, dataset.test)
    known = np.flatnonzero(scored >= 0)
    drawn = draw_to_shares(scored[known], mine, number, rng, "client test")
    return val, [known[index] for index in drawn]


def _same_domains(dataset: Dataset, index: Ints) -> Ints:
    """Give the test samples of the domains (weathers) of these training samples.

    Where none of them has a domain: the test samples without one, or all if there are none.
    """
    mine, test = np.unique(dataset.train.domain[index]), dataset.test.domain
    if mine.tolist() == [-1]:
        return np.flatnonzero(test < 0) if (test < 0).any() else np.arange(len(test))
    return np.flatnonzero(np.isin(test, mine[mine >= 0]))


def cached_split(
    dataset: Dataset,
    partition: Partition,
    labels: LabelRule,
    num_clients: int,
    validation: float,
    *,
    seed: int,
    cache: Path | None = None,
) -> Split:
    """Give `make_split`'s result, computed once and kept in the cache folder."""
    choices = [[rule.name, dataclasses.asdict(rule)] for rule in (partition, labels)]
    text = json.dumps([_VERSION, dataset.key, choices, num_clients, validation, seed])
    root = cache_directory() if cache is None else Path(cache)
    path = root / f"split-{hashlib.sha256(text.encode()).hexdigest()}.npz"
    if path.is_file():
        try:
            return Split.load(path)
        except ConfigError:
            path.unlink(missing_ok=True)
    split = make_split(dataset, partition, labels, num_clients, validation, seed=seed)
    replace_whole(path, split._write)
    return split


def _offsets(parts: Sequence[Ints]) -> Ints:
    return np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)


def _cut(values: Ints, offsets: Ints, client_id: int) -> Ints:
    return values[offsets[client_id] : offsets[client_id + 1]]
