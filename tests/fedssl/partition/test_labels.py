from __future__ import annotations

import numpy as np
import pytest

from fedssl.partition.base import LABELS
from fedssl.partition.labels import AsIs, AtServer, ClientCount, ClientRate, NoLabels, SomeClients, TotalCount
from fedssl.rng import Rng

Y = np.array([0] * 20 + [1] * 7 + [2] * 3 + [-1] * 10)
PARTS = [np.arange(0, 15), np.arange(15, 28), np.arange(28, 40), np.zeros(0, np.int64)]


def counts(rule) -> list[list[int]]:
    chosen = rule.choose(Y, PARTS, 3, Rng(0))
    for part, labelled in zip(PARTS, chosen, strict=True):
        assert set(labelled) <= set(part)
        assert (Y[labelled] >= 0).all()
        assert (np.diff(labelled) > 0).all()
    return [np.bincount(Y[labelled], minlength=3).tolist() for labelled in chosen]


def test_client_rate_rounds_and_gives_each_class_held_one():
    assert counts(ClientRate(rate=0.3)) == [[5, 0, 0], [2, 2, 1], [0, 0, 1], [0, 0, 0]]
    assert counts(ClientRate(rate=0.0)) == [[0, 0, 0]] * 4
    assert counts(ClientRate(rate=1.0)) == [[15, 0, 0], [5, 7, 1], [0, 0, 2], [0, 0, 0]]


def test_client_count_gives_what_is_there():
    assert counts(ClientCount(count=6)) == [[6, 0, 0], [5, 6, 1], [0, 0, 2], [0, 0, 0]]


def test_some_clients_label_as_by_rate_and_the_others_nothing():
    everyone = counts(ClientRate(rate=0.3))
    found = counts(SomeClients(rate=0.3, fraction=0.5))
    without = [client for client, labelled in enumerate(found) if labelled != everyone[client]]
    assert all(found[client] == [0, 0, 0] for client in without)
    assert 1 <= len(without) <= 2
    assert counts(SomeClients(rate=0.3, fraction=1.0)) == everyone
    assert counts(SomeClients(rate=0.3, fraction=0.0)) == counts(NoLabels()) == [[0, 0, 0]] * 4


def test_which_clients_have_labels_is_drawn_by_the_seed():
    y, parts = np.zeros(100, np.int64), list(np.arange(100).reshape(10, 10))
    chosen = [SomeClients(rate=1.0, fraction=0.3).choose(y, parts, 1, Rng(seed)) for seed in (0, 0, 1)]
    known = [[client for client, part in enumerate(one) if len(part)] for one in chosen]
    assert [len(one) for one in known] == [3, 3, 3]
    assert known[0] == known[1] != known[2]


def test_total_count_is_over_all_clients():
    assert np.sum(counts(TotalCount(count=4)), axis=0).tolist() == [4, 4, 3]


def test_asis_keeps_what_is_known():
    assert counts(AsIs()) == [[15, 0, 0], [5, 7, 1], [0, 0, 2], [0, 0, 0]]


@pytest.mark.parametrize("name", ["client_rate", "client_count", "total_count"])
def test_the_seed_decides(name):
    rule = LABELS.create({"name": name} | ({"rate": 0.3} if name == "client_rate" else {"count": 3}))
    first, again, other = (np.concatenate(rule.choose(Y, PARTS, 3, Rng(s))) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_noise_replaces_an_exact_share_by_other_classes_uniformly():
    y = np.zeros(4000, np.int64)
    told = AsIs(noise=0.25).told(y, 5, Rng(0))
    counts = np.bincount(told, minlength=5)
    assert counts[0] == 3000
    assert counts[1:].min() > 200
    assert counts[1:].max() < 300
    np.testing.assert_array_equal(AsIs().told(y, 5, Rng(0)), y)


def test_at_server_draws_so_many_of_each_class():
    y = np.array([0, 0, 0, 1, 1, 2, -1, -1])
    mine = AtServer(count=2).for_server(y, 3, Rng(0))
    assert not AtServer().shares_with_server()
    assert np.bincount(y[mine]).tolist() == [2, 2, 1]
    # round(0.5 n), one at least: 2 of 3, 1 of 2, 1 of 1.
    mine = AtServer(rate=0.5, copies=True).for_server(y, 3, Rng(0))
    assert AtServer(copies=True).shares_with_server()
    assert np.bincount(y[mine]).tolist() == [2, 1, 1]
    assert (np.diff(mine) > 0).all()
    assert [part.tolist() for part in AtServer().choose(y, [np.arange(4)], 3, Rng(0))] == [[]]
