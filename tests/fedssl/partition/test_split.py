from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.partition.dirichlet import Dirichlet
from fedssl.partition.iid import Iid
from fedssl.partition.labels import AsIs, AtServer, ClientRate, NoLabels, TotalCount
from fedssl.partition.shares import class_counts, draw_to_shares
from fedssl.partition.split import Split, cached_split, make_split
from fedssl.rng import Rng


def made(dataset, seed: int = 0, labels=None, partition=None, clients: int = 6) -> Split:
    rule = labels or TotalCount(count=8)
    return make_split(dataset, partition or Dirichlet(), rule, clients, 0.2, seed=seed)


def test_training_samples_are_held_once_and_apart_from_validation(dataset):
    split = made(dataset)
    assert split.num_clients == 6
    assert split.dropped == 0
    assert len(np.unique(split.train_index)) == len(split.train_index) == 500
    pool = np.setdiff1d(np.arange(600), split.train_index)
    np.testing.assert_array_equal(np.bincount(dataset.train.y[pool]), [20] * 5)
    assert set(split.validation_index) <= set(pool)
    np.testing.assert_array_equal(split.truth, dataset.train.y[split.train_index])
    for client in range(6):
        indices = split.client(client)
        parts = (indices.labelled, indices.unlabelled, indices.validation, indices.test)
        assert all((np.diff(part) > 0).all() for part in parts)
        assert not set(indices.labelled) & set(indices.unlabelled)


def test_labels_are_told_as_counted(dataset):
    split = made(dataset)
    told = split.label >= 0
    np.testing.assert_array_equal(split.label[told], split.truth[told])
    np.testing.assert_array_equal(np.bincount(split.label[told]), [8] * 5)
    given = split.given(600)
    np.testing.assert_array_equal(given[split.train_index], split.label)
    assert (given >= 0).sum() == 40
    noisy = made(dataset, labels=AsIs(noise=0.1))
    known = noisy.truth >= 0
    np.testing.assert_array_equal(noisy.label >= 0, known)
    assert (noisy.label != noisy.truth).sum() == 40


def test_test_samples_follow_the_class_shares(dataset):
    split = made(dataset, partition=Dirichlet(alpha=0.3))
    for client in range(6):
        start, end = split.train_offsets[client : client + 2]
        truth = split.truth[start:end]
        held = np.bincount(truth[truth >= 0], minlength=5)
        test = split.client(client).test
        drawn = np.bincount(dataset.test.y[test], minlength=5)
        assert len(np.unique(test)) == len(test) >= 20
        assert np.abs(drawn - held / held.sum() * drawn.sum()).max() < 1


def test_class_counts_shrink_but_not_below_twenty():
    available = np.array([40, 40, 0])
    assert class_counts(np.array([1, 1, 0]), available, 33).tolist() in ([17, 16, 0], [16, 17, 0])
    assert class_counts(np.array([9, 1, 0]), available, 100).tolist() == [40, 4, 0]
    assert class_counts(np.array([9, 1, 5]), available, 100).tolist() == [40, 4, 0]
    assert class_counts(np.array([1, 1, 0]), np.array([2, 90, 9]), 100).tolist() == [2, 11, 0]
    assert class_counts(np.array([0, 0, 3]), available, 100) is None


def test_clients_of_unknown_class_draw_uniformly_and_an_empty_pool_gives_nothing():
    y = np.repeat(np.arange(5), 40)
    unknown = [np.full(9, -1)] * 4
    drawn = draw_to_shares(y, unknown, 5, Rng(0), "client test")
    assert [len(np.unique(part)) for part in drawn] == [50] * 4
    assert not np.array_equal(drawn[0], drawn[1])
    nothing = draw_to_shares(y[:0], [np.array([0, 1])], 5, Rng(0), "client test")
    assert [len(part) for part in nothing] == [0]


def test_the_seed_decides(dataset):
    assert made(dataset, 1).sha256 == made(dataset, 1).sha256
    assert made(dataset, 1).sha256 != made(dataset, 2).sha256


def test_more_clients_than_samples_is_refused(dataset):
    with pytest.raises(ConfigError, match=r"^clients=501"):
        made(dataset, clients=501, partition=Iid())


def test_validation_may_be_empty(dataset):
    split = make_split(dataset, Iid(), ClientRate(), 3, 0.0, seed=0)
    assert len(split.train_index) == 600
    assert len(split.client(0).validation) == 0


def test_hash_covers_every_field(dataset):
    server = np.arange(3)
    split = dataclasses.replace(made(dataset), server_index=server, server_label=server)
    for item in dataclasses.fields(Split):
        value = getattr(split, item.name)
        changed = value + 1 if not isinstance(value, tuple) else (*value[1:], "z")
        assert dataclasses.replace(split, **{item.name: changed}).sha256 != split.sha256


def test_splits_without_a_server_keep_the_hash_they_had(dataset):
    split = made(dataset)
    assert split.sha256 == "892c4548ffc31b11d694487c46ed3de26ac94e66d3aa76e57a7133fd7a34cf78"
    assert len(split.server().labelled) == len(split.server().unlabelled) == 0


def test_save_and_load_give_the_same_and_damage_is_seen(dataset, tmp_path):
    split = made(dataset)
    path = tmp_path / "run" / "split.npz"
    split.save(path)
    loaded = Split.load(path)
    assert loaded.sha256 == split.sha256
    assert loaded.class_names == split.class_names
    np.testing.assert_array_equal(loaded.label, split.label)
    assert [entry.name for entry in path.parent.iterdir()] == ["split.npz"]
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **{**arrays, "label": arrays["label"] - 1})
    with pytest.raises(ConfigError, match="its hash differs"):
        Split.load(path)
    path.write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"^split="):
        Split.load(path)


def test_cached_split_is_computed_once_for_its_arguments(dataset, tmp_path, monkeypatch):
    def cached(**changes: object) -> Split:
        rules = {"partition": Iid(), "labels": ClientRate(), "num_clients": 4, "validation": 0.1}
        return cached_split(dataset, **{**rules, "seed": 3, **changes}, cache=tmp_path)

    first = cached()
    assert first.sha256 == make_split(dataset, Iid(), ClientRate(), 4, 0.1, seed=3).sha256
    stored = list(tmp_path.iterdir())
    assert len(stored) == 1
    with monkeypatch.context() as patch:
        patch.setattr("fedssl.partition.split.make_split", lambda *_, **__: pytest.fail("again"))
        assert cached().sha256 == first.sha256
    stored[0].write_bytes(b"damaged")
    assert cached().sha256 == first.sha256
    for change in ({"seed": 4}, {"labels": ClientRate(rate=0.5)}, {"num_clients": 5}):
        assert cached(**change).sha256 != first.sha256
    assert len(list(tmp_path.iterdir())) == 4


def test_a_rule_gives_the_server_labelled_samples_and_clients_the_rest(dataset):
    split = made(dataset, labels=AtServer(count=8))
    assert np.bincount(split.server_label).tolist() == [8] * 5
    np.testing.assert_array_equal(split.server_label, dataset.train.y[split.server_index])
    assert not set(split.server_index) & set(split.train_index)
    assert not set(split.server_index) & set(split.validation_index)
    assert (split.label == -1).all()
    assert len(split.server_index) + len(split.train_index) + len(np.unique(split.validation_index)) <= 600
    assert (split.kinds == 0).all()


def test_with_copies_the_server_knows_all_and_clients_hold_what_they_would(dataset):
    split, plain = (made(dataset, labels=rule) for rule in (AtServer(rate=1.0, copies=True), NoLabels()))
    known = np.flatnonzero(plain.truth >= 0)
    np.testing.assert_array_equal(split.server_index, np.sort(plain.train_index[known]))
    assert np.bincount(split.server_label).tolist() == [80] * 5
    np.testing.assert_array_equal(split.train_index, plain.train_index)
    np.testing.assert_array_equal(split.validation_index, plain.validation_index)
    assert all(len(split.client(client).labelled) == 0 for client in range(6))


@pytest.mark.parametrize("copies", [False, True])
def test_nobody_validates_on_the_servers_samples_and_its_labels_have_noise(dataset, copies):
    split = made(dataset, labels=AtServer(count=60, copies=copies, noise=0.1))
    true = dataset.train.y[split.server_index]
    assert np.bincount(true).tolist() == [60] * 5
    assert not set(split.server_index) & set(split.validation_index)
    assert np.isin(split.server_index, split.train_index).all() == copies
    assert (split.server_label != true).sum() == 30
    assert (split.given(600)[split.server_index] == split.server_label).all()


def test_noise_leaves_the_labels_of_what_the_data_reserve(dataset):
    group = np.where(np.arange(600) % 100 < 50, 0, 1)
    reserved = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, group=group), server_groups=(0,))
    split = made(reserved, labels=AtServer(count=20, noise=0.25))
    true, own = dataset.train.y[split.server_index], group[split.server_index] == 0
    assert (own.sum(), len(own)) == (250, 350)
    assert (split.server_label[own] == true[own]).all()
    assert (split.server_label != true).sum() == 25
