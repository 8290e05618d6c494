"""Tests of the partition natural and of the samples that are the server's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.base import ABSENT, SEEN, Dataset, Samples
from fedssl.partition.dirichlet import Dirichlet
from fedssl.partition.iid import Iid
from fedssl.partition.labels import AsIs, ClientRate, TotalCount
from fedssl.partition.natural import Natural
from fedssl.partition.open_world import OpenWorld
from fedssl.partition.split import Split, make_split


def samples(y: list[int], group: list[int]) -> Samples:
    return Samples(np.zeros((len(y), 4, 2), np.float32), np.array(y), np.array(group))


@pytest.fixture
def people() -> Dataset:
    """Groups 5, 8, 9 and 12, dealt in turn; group 5 is the server's. 10 training samples a class and group."""
    train = samples([i // 4 % 3 for i in range(120)], [(5, 8, 9, 12)[i % 4] for i in range(120)])
    test = samples([i // 3 % 3 for i in range(36)], [(12, 9, 8)[i % 3] for i in range(36)])
    return Dataset("people", train, test, ("a", "b", "c"), (0.0,) * 2, (1.0,) * 2, "key", server_groups=(5,))


def made(dataset: Dataset, partition=None, labels=None, clients: int = 3, validation: float = 0.2) -> Split:
    return make_split(dataset, partition or Natural(), labels or ClientRate(rate=0.1), clients, validation, seed=0)


def test_a_client_is_a_group_and_the_server_has_its_own(people):
    split = made(people)
    assert split.num_clients == 3
    for client, group in enumerate((8, 9, 12)):
        mine = split.client(client)
        train = np.concatenate([mine.labelled, mine.unlabelled, mine.validation])
        assert np.sort(train).tolist() == np.flatnonzero(people.train.group == group).tolist()
        assert mine.test.tolist() == np.flatnonzero(people.test.group == group).tolist()
        assert len(mine.labelled) == 3
    server = split.server()
    assert server.labelled.tolist() == np.flatnonzero(people.train.group == 5).tolist()
    assert len(server.unlabelled) == len(server.validation) == len(server.test) == 0
    assert split.dropped == 0


def test_validation_is_stratified_and_of_clients_alone(people):
    split = made(people)
    pool = split.validation_index
    assert len(np.unique(pool)) == len(pool) == 18
    assert np.bincount(people.train.y[pool]).tolist() == [6, 6, 6]
    assert 5 not in people.train.group[pool]
    few = made(people, clients=2)
    assert set(people.train.group[few.validation_index]) == {8, 9}
    assert np.bincount(people.train.y[few.validation_index]).tolist() == [4, 4, 4]
    assert set(people.train.group[few.train_index]) == {8, 9}
    assert few.dropped == 30


def test_the_server_is_told_the_truth_and_its_classes_are_seen(people):
    y = people.train.y.copy()
    y[(people.train.group == 5) & (y == 1)] = -1
    y[(people.train.group != 5) & (y == 2)] = 0
    dataset = replace(people, train=replace(people.train, y=y))
    split = made(dataset, labels=ClientRate(rate=0.0))
    assert (people.train.group[split.server_index] == 5).all()
    assert np.bincount(split.server_label).tolist() == [10, 0, 10]
    given = split.given(120)
    assert given[split.server_index].tolist() == y[split.server_index].tolist()
    assert (np.delete(given, split.server_index) == -1).all()
    assert split.kinds.tolist() == [SEEN, 1, SEEN]
    alone = replace(split, server_index=split.server_index[:0], server_label=split.server_label[:0])
    assert alone.kinds.tolist() == [1, 1, ABSENT]


@pytest.mark.parametrize("partition", [Iid(), Dirichlet(), OpenWorld(groups=1)])
def test_other_partitions_leave_the_servers_samples_out(people, partition):
    split = made(people, partition, TotalCount(count=5))
    everything = np.concatenate([split.train_index, split.validation_index])
    assert not (people.train.group[everything] == 5).any()
    assert len(split.train_index) == 90 - 18
    assert split.server().labelled.tolist() == np.flatnonzero(people.train.group == 5).tolist()


def test_more_clients_than_groups_are_refused_with_both_numbers(people):
    with pytest.raises(ConfigError, match=r"^clients=4: must be at most 3, the groups"):
        made(people, clients=4)
    nobody = replace(people, train=replace(people.train, group=np.full(120, -1)))
    with pytest.raises(ConfigError, match=r"^partition='natural': .* have no natural groups"):
        made(nobody)


def test_samples_without_a_group_are_nobodys(people):
    group = people.train.group.copy()
    group[:8] = -1
    split = made(replace(people, train=replace(people.train, group=group)), validation=0.0)
    assert split.dropped == 8
    assert len(split.train_index) == 90 - 6
    found = Natural().assign(people.train.y[:8], group[4:12], 1, None)
    assert [part.tolist() for part in found] == [[4]]


def test_where_test_samples_have_no_groups_they_follow_the_class_shares(people):
    train = replace(people.train, y=np.where(people.train.group == 8, 2, people.train.y))
    dataset = replace(people, train=train, test=replace(people.test, group=np.full(36, -1)))
    split = made(dataset)
    assert set(people.test.y[split.client(0).test]) == {2}


def test_a_group_whose_samples_all_validate_keeps_its_place():
    train = samples([0, 0, 0, 0, 1, 1, 1, 1, 0, 1], [1, 2, 2, 2, 2, 3, 3, 3, 3, 3])
    dataset = Dataset("p", train, samples([0, 1, 0], [1, 2, 3]), ("a", "b"), (0.0,), (1.0,), "key")
    for seed in range(40):
        split = make_split(dataset, Natural(), AsIs(), 3, 0.6, seed=seed)
        if 0 in split.validation_index:
            break
    assert split.client(0).validation.tolist() == [0]
    assert len(split.client(0).labelled) == 0
    assert [split.client(client).test.tolist() for client in range(3)] == [[0], [1], [2]]


def test_a_split_with_a_server_is_stored_whole(people, tmp_path):
    split = made(people)
    split.save(tmp_path / "split.npz")
    loaded = Split.load(tmp_path / "split.npz")
    assert loaded.sha256 == split.sha256
    assert loaded.server_index.tolist() == split.server_index.tolist()
    assert loaded.given(120).tolist() == split.given(120).tolist()
    assert made(replace(people, server_groups=()), clients=3).sha256 != split.sha256


def test_a_client_is_tested_on_the_domains_it_trains_on(people):
    """Groups 8 and 9 have a domain each, 12 has both; nobody's domain 2 is in no client's test."""
    group = people.train.group
    domain = np.select([group == 8, group == 9, group == 12], [0, 1, np.arange(120) % 8 // 4], 2)
    train = replace(people.train, domain=domain)
    test = replace(people.test, group=np.full(36, -1), domain=np.arange(36) % 4 - 1)
    split = made(replace(people, train=train, test=test, domain_names=("dry", "wet", "dark")))
    expected = [np.flatnonzero(np.isin(test.domain, held)).tolist() for held in ([0], [1], [0, 1])]
    assert [split.client(client).test.tolist() for client in range(3)] == expected
    assert [len(part) for part in expected] == [9, 9, 18]


@pytest.mark.parametrize("without", [True, False])
def test_clients_without_a_domain_are_tested_on_pictures_without_one_or_on_all(people, without):
    train = replace(people.train, domain=np.where(people.train.group == 8, 0, -1))
    test = replace(people.test, group=np.full(36, -1), domain=np.arange(36) % 3 - without)
    split = made(replace(people, train=train, test=test, domain_names=("dry", "wet", "dark")))
    others = list(range(0, 36, 3)) if without else list(range(36))
    expected = [list(range(int(without), 36, 3)), others, others]
    assert [split.client(client).test.tolist() for client in range(3)] == expected


def test_own_test_samples_of_other_partitions_are_of_known_class(people):
    y = people.test.y.copy()
    y[:6] = -1
    split = made(replace(people, test=replace(people.test, y=y)), Iid(), ClientRate(rate=0.1))
    assert len(split.test_index) == 3 * 20
    assert not np.isin(split.test_index, np.arange(6)).any()


def test_a_scene_of_the_servers_without_boxes_is_labelled(people):
    y = np.where(np.arange(120) < 8, -1, people.train.y)
    offsets = np.zeros(121, np.int64)
    scenes = replace(people, train=replace(people.train, y=y, box_offsets=offsets))
    split = made(scenes, labels=ClientRate(rate=0.0))
    assert split.server_index.tolist() == np.flatnonzero(people.train.group == 5).tolist()
    assert split.server_label[:2].tolist() == [-1, -1]
    assert split.kinds.tolist() == [SEEN] * 3
    only = replace(split, server_index=split.server_index[:2], server_label=split.server_label[:2])
    assert only.kinds.tolist() == [1, 1, 1]
