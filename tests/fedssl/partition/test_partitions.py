from __future__ import annotations

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.partition import flower
from fedssl.partition.base import PARTITIONS, by_owner, ranks
from fedssl.partition.dirichlet import Dirichlet, dirichlet_owner, top_up
from fedssl.partition.iid import Iid
from fedssl.rng import Rng

Y = np.repeat(np.arange(10), 50)


def assign(rule, num_clients: int, seed: int = 0, y: np.ndarray = Y) -> list[np.ndarray]:
    return rule.assign(y, np.full(len(y), -1), num_clients, Rng(seed))


@pytest.mark.parametrize("num_clients", [1, 7, 100, 300, 500])
@pytest.mark.parametrize("rule", [Iid(), Dirichlet(alpha=0.1), Dirichlet(alpha=1e-12)])
def test_every_sample_is_dealt_once_and_every_client_has_one(rule, num_clients):
    parts = assign(rule, num_clients)
    assert len(parts) == num_clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(500))
    for part in parts:
        assert len(part) > 0
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("num_clients", [8, 250])
@pytest.mark.parametrize("name", ["iid", "dirichlet"])
def test_the_seed_decides(name, num_clients):
    rule = PARTITIONS.create({"name": name})
    first, again, other = (assign(rule, num_clients, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_shares_differ_by_one_at_most_with_either_code(monkeypatch):
    library = assign(Iid(), 7)
    assert sorted({len(part) for part in library}) == [71, 72]
    monkeypatch.setattr("fedssl.partition.iid.MAX_CLIENTS", 0)
    assert all(np.array_equal(a, b) for a, b in zip(library, assign(Iid(), 7), strict=True))


@pytest.mark.parametrize("most", [200, 0])
def test_alpha_sets_how_uneven_class_shares_are(most, monkeypatch):
    monkeypatch.setattr("fedssl.partition.dirichlet.MAX_CLIENTS", most)

    def largest_share(alpha: float) -> float:
        parts = assign(Dirichlet(alpha=alpha), 5)
        return float(np.mean([np.bincount(Y[part]).max() / len(part) for part in parts]))

    assert largest_share(1e6) < 0.12
    assert largest_share(0.05) > 0.3


def test_samples_of_unknown_class_are_dealt_in_equal_shares():
    y = np.where(np.arange(500) % 5 == 0, -1, Y)
    parts = assign(Dirichlet(alpha=0.1), 10, y=y)
    assert [int((y[part] < 0).sum()) for part in parts] == [10] * 10


def test_min_size_holds_and_is_refused_when_impossible():
    assert min(len(part) for part in assign(Dirichlet(alpha=0.1, min_size=20), 20)) >= 20
    with pytest.raises(ConfigError, match=r"^clients=26: must be at most 25"):
        assign(Dirichlet(min_size=20), 26)
    with pytest.raises(ConfigError, match=r"^clients=501: must be at most 500"):
        assign(Iid(), 501)


def test_a_partitioner_that_loses_samples_or_gives_up_is_not_used(monkeypatch):
    options = {"partition_by": "y", "alpha": 0.01, "min_partition_size": 40, "seed": 0}
    assert flower.flower_parts("DirichletPartitioner", Y, 12, **options) is None
    monkeypatch.setattr(flower, "_rows", lambda _: np.array([0, 1]))
    assert flower.flower_parts("IidPartitioner", Y, 2) is None


def test_dirichlet_owner_splits_each_class_at_the_drawn_shares():
    owner = dirichlet_owner(np.repeat([0, 1], 1000), 3, 1.0, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    for label in range(2):
        shares = generator.dirichlet([1.0, 1.0, 1.0])
        counts = np.bincount(owner[label * 1000 : (label + 1) * 1000], minlength=3)
        assert np.abs(counts - 1000 * shares).max() < 1


def test_top_up_takes_from_the_largest():
    owner = np.array([0, 0, 0, 0, 2, 2])
    top_up(owner, 4, 1)
    np.testing.assert_array_equal(np.bincount(owner), [2, 1, 2, 1])


def test_by_owner_and_ranks():
    parts = by_owner(np.array([2, 0, 2, 0]), 4)
    assert [part.tolist() for part in parts] == [[1, 3], [], [0, 2], []]
    group = np.array([5, 1, 5, 5, 1])
    place = ranks(group, np.random.default_rng(0))
    assert sorted(place[group == 5]) == [0, 1, 2]
    assert sorted(place[group == 1]) == [0, 1]
