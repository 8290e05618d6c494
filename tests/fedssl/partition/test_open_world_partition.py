from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.base import ABSENT, GLOBALLY_UNSEEN, LOCALLY_UNSEEN, SEEN, Dataset, Samples
from fedssl.partition.base import PARTITIONS
from fedssl.partition.iid import Iid
from fedssl.partition.labels import AsIs, ClientRate, TotalCount
from fedssl.partition.open_world import OpenWorld
from fedssl.partition.split import Split, make_split
from fedssl.rng import Rng


def samples(y: np.ndarray) -> Samples:
    return Samples(np.zeros((len(y), 1, 1, 1), np.uint8), y, np.full(len(y), -1))


def classes(num_classes: int, per_class: int) -> Dataset:
    """Give balanced classes in mixed order, so that position says nothing about class."""
    y = np.random.default_rng(5).permutation(np.repeat(np.arange(num_classes), per_class))
    test = samples(np.repeat(np.arange(num_classes), 20))
    names = tuple(f"c{label}" for label in range(num_classes))
    return Dataset("toy", samples(y), test, names, (0.5,), (0.5,), "key")


CIFAR10 = classes(10, 5000)


def made(dataset: Dataset, clients: int, seed: int = 0, labels=None, validation: float = 0.0, **options) -> Split:
    return make_split(dataset, OpenWorld(**options), labels or ClientRate(rate=0.5), clients, validation, seed=seed)


def counts(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Give labelled and unlabelled samples by client and true class."""
    shape = (split.num_clients, len(split.class_names))
    client = np.repeat(np.arange(shape[0]), np.diff(split.train_offsets))
    told = split.label >= 0
    out = np.zeros((2, *shape), np.int64)
    np.add.at(out, ((~told).astype(int), client, split.truth), 1)
    return out[0], out[1]


def test_ten_clients_hold_what_the_paper_counts():
    labelled, unlabelled = counts(made(CIFAR10, 10))
    np.testing.assert_array_equal(labelled, [[250] * 6 + [0] * 4] * 10)
    np.testing.assert_array_equal(unlabelled[:, :7], [[250] * 6 + [500]] * 10)
    np.testing.assert_array_equal(unlabelled[:, 7], [1250, 0, 0] * 3 + [1250])
    np.testing.assert_array_equal(unlabelled[:, 8], [0, 1667, 0, 0, 1667, 0, 0, 1666, 0, 0])
    np.testing.assert_array_equal(unlabelled[:, 9], [0, 0, 1667, 0, 0, 1667, 0, 0, 1666, 0])
    assert labelled.sum(axis=1).tolist() == [1500] * 10
    assert set(unlabelled.sum(axis=1)) == {3250, 3666, 3667}


def test_fifty_clients_hold_what_the_paper_counts():
    labelled, unlabelled = counts(made(CIFAR10, 50))
    np.testing.assert_array_equal(labelled, [[50] * 6 + [0] * 4] * 50)
    np.testing.assert_array_equal(unlabelled[:, :7], [[50] * 6 + [100]] * 50)
    owners = [(unlabelled[:, label] > 0).sum() for label in (7, 8, 9)]
    assert owners == [17, 17, 16]
    assert [set(unlabelled[:, label]) - {0} for label in (7, 8, 9)] == [{294, 295}, {294, 295}, {312, 313}]


def test_three_clients_hold_one_private_class_each():
    labelled, unlabelled = counts(made(CIFAR10, 3))
    np.testing.assert_array_equal(labelled + unlabelled, [
        [1667] * 7 + [5000, 0, 0],
        [1667] * 7 + [0, 5000, 0],
        [1666] * 7 + [0, 0, 5000],
    ])  # fmt: skip
    np.testing.assert_array_equal(labelled, [[834] * 6 + [0] * 4, [834] * 6 + [0] * 4, [833] * 6 + [0] * 4])


def test_the_reduced_protocol_has_its_counts():
    labelled, unlabelled = counts(made(classes(10, 2000), 10))
    np.testing.assert_array_equal(labelled[:, :6], np.full((10, 6), 100))
    np.testing.assert_array_equal(unlabelled[:, :7], [[100] * 6 + [200]] * 10)
    assert [set(unlabelled[:, label]) - {0} for label in (7, 8, 9)] == [{500}, {666, 667}, {666, 667}]


def test_the_authors_layout_has_its_counts():
    labelled, unlabelled = counts(made(CIFAR10, 5, layout="released"))
    np.testing.assert_array_equal(labelled, [[500] * 6 + [0] * 4] * 5)
    np.testing.assert_array_equal(unlabelled[:, :7], [[500] * 6 + [1000]] * 5)
    expected = [[2500, 0, 0], [2500, 0, 0], [0, 2500, 0], [0, 2500, 0], [0, 0, 5000]]
    np.testing.assert_array_equal(unlabelled[:, 7:], expected)


def test_a_hundred_classes_have_three_groups_of_ten():
    labelled, unlabelled = counts(made(classes(100, 50), 10))
    assert (labelled[:, :60] > 0).all()
    assert not labelled[:, 60:].any()
    np.testing.assert_array_equal(unlabelled[:, 60:70], np.full((10, 10), 5))
    owns = unlabelled[:, 70:].reshape(10, 3, 10) > 0
    np.testing.assert_array_equal(owns.all(axis=2), np.arange(10)[:, None] % 3 == np.arange(3))
    np.testing.assert_array_equal(owns.all(axis=2), owns.any(axis=2))


@pytest.mark.parametrize("clients", [1, 3, 10, 50])
def test_every_sample_is_held_once_and_only_seen_classes_have_labels(clients):
    split = made(CIFAR10, clients)
    np.testing.assert_array_equal(np.sort(split.train_index), np.arange(50_000))
    assert split.dropped == 0
    np.testing.assert_array_equal(split.truth, CIFAR10.train.y[split.train_index])
    told = split.label >= 0
    np.testing.assert_array_equal(split.label[told], split.truth[told])
    assert set(split.label[told]) == set(range(6))


def test_the_seed_decides():
    small = classes(10, 60)
    assert made(small, 5, 1).sha256 == made(small, 5, 1).sha256
    first, other = made(small, 5, 1), made(small, 5, 2)
    assert first.sha256 != other.sha256
    np.testing.assert_array_equal(counts(first), counts(other))


def test_kinds_are_read_off_the_split():
    kinds = made(CIFAR10, 10).kinds
    assert kinds.dtype == np.int8
    assert kinds.tolist() == [SEEN] * 6 + [LOCALLY_UNSEEN] + [GLOBALLY_UNSEEN] * 3
    assert made(CIFAR10, 1).kinds.tolist() == [SEEN] * 6 + [LOCALLY_UNSEEN] * 4
    assert made(classes(10, 60), 4, labels=ClientRate(rate=0.0)).kinds.tolist() == [1] * 7 + [2] * 3


def test_kinds_count_true_classes_and_only_clients_that_hold_something():
    split = Split(
        train_index=np.arange(7),
        train_offsets=np.array([0, 4, 4, 7]),
        label=np.array([2, -1, -1, -1, -1, -1, -1]),
        truth=np.array([0, 1, 2, -1, 1, 2, 3]),
        **{name: np.zeros(0, np.int64) for name in ("validation_index", "test_index")},
        **{name: np.zeros(4, np.int64) for name in ("validation_offsets", "test_offsets")},
        class_names=tuple("abcde"),
        dropped=0,
    )
    # Sample 0 is of class 0 but was told 2; client 1 holds nothing; nobody holds class 4.
    assert split.kinds.tolist() == [SEEN, LOCALLY_UNSEEN, LOCALLY_UNSEEN, GLOBALLY_UNSEEN, ABSENT]
    assert "kinds" not in {item.name for item in dataclasses.fields(Split)}


def test_other_partitions_have_seen_classes_alone(dataset):
    assert make_split(dataset, Iid(), TotalCount(count=3), 4, 0.1, seed=0).kinds.tolist() == [SEEN] * 5
    assert not Iid.open_world
    assert OpenWorld.open_world


@pytest.mark.parametrize(
    ("ratio", "num_classes", "groups", "expected"),
    [
        (0.6, 10, 3, ([6], [1], [1, 1, 1])),
        (0.4, 10, 3, ([4], [1], [2, 2, 1])),
        (0.8, 10, 3, ([8], [1], [1, 0])),
        (0.6, 100, 3, ([60], [10], [10, 10, 10])),
        (0.6, 10, 1, ([6], [2], [2])),
        (0.6, 10, 9, ([6], [1], [1, 1, 1])),
        (0.6, 2, 3, ([1], [1], [0, 0])),
        (0.99, 3, 3, ([2], [1], [0, 0])),
        (0.01, 3, 3, ([1], [1], [1, 0])),
    ],
)
def test_classes_are_told_apart_by_number(ratio, num_classes, groups, expected):
    seen, shared, private = OpenWorld(seen_ratio=ratio, groups=groups).kinds_of(num_classes, 10)
    assert ([len(seen)], [len(shared)], [len(part) for part in private]) == expected
    np.testing.assert_array_equal(np.concatenate([seen, shared, *private]), np.arange(num_classes))


def test_a_single_private_class_stays_private():
    split = made(classes(10, 60), 4, seen_ratio=0.8)
    assert split.kinds.tolist() == [SEEN] * 8 + [LOCALLY_UNSEEN, GLOBALLY_UNSEEN]
    np.testing.assert_array_equal(counts(split)[1][:, 9], [30, 0, 30, 0])


def test_two_classes_are_one_seen_and_one_shared():
    labelled, unlabelled = counts(made(classes(2, 10), 4))
    np.testing.assert_array_equal(labelled, [[2, 0], [2, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(unlabelled, [[1, 3], [1, 3], [1, 2], [1, 2]])


def test_fewer_clients_than_groups_drop_no_class():
    np.testing.assert_array_equal(counts(made(classes(10, 6), 2))[1][:, 6:], [[3, 6, 6, 0], [3, 0, 0, 6]])


def test_a_class_with_fewer_samples_than_clients_goes_to_the_lowest_ids():
    y = np.concatenate([np.repeat([0, 1, 2], 40), [3, 3], np.full(40, 4)])
    small = dataclasses.replace(classes(5, 1), train=samples(y))
    held = sum(counts(made(small, 4, seen_ratio=0.6)))
    np.testing.assert_array_equal(held[:, 3], [1, 1, 0, 0])
    np.testing.assert_array_equal(held[:, 0], [10] * 4)


def test_clients_that_would_hold_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"^clients=7: must be at most 3"):
        made(classes(4, 3), 7)
    assert made(classes(4, 3), 3).num_clients == 3


def test_one_class_is_refused():
    only = dataclasses.replace(classes(2, 5), train=samples(np.zeros(9, np.int64)))
    with pytest.raises(ConfigError, match=r"^partition='open_world'"):
        made(only, 2)


def test_samples_of_unknown_class_are_dealt_equally_and_stay_without_label(dataset):
    split = made(dataset, 4, labels=AsIs())
    unknown = split.truth == -1
    client = np.repeat(np.arange(4), np.diff(split.train_offsets))
    np.testing.assert_array_equal(np.bincount(client[unknown]), [25] * 4)
    # Three of five classes are seen; `asis` gives all labels there are of those.
    np.testing.assert_array_equal(split.label, np.where(split.truth < 3, split.truth, -1))


def test_seen_alpha_skews_seen_classes_alone():
    even, skewed = (sum(counts(made(classes(10, 200), 5, seen_alpha=alpha))) for alpha in (0.0, 0.1))
    np.testing.assert_array_equal(even[:, :6], np.full((5, 6), 40))
    assert skewed[:, :6].max() > 100
    np.testing.assert_array_equal(skewed[:, 6:], even[:, 6:])
    np.testing.assert_array_equal(skewed.sum(axis=0), [200] * 10)


def test_noise_names_seen_classes_alone():
    split = made(classes(10, 200), 5, labels=ClientRate(rate=0.5, noise=0.5))
    told = split.label >= 0
    assert set(split.label[told]) == set(range(6))
    assert (split.label != split.truth)[told].sum() == 300
    with pytest.raises(ConfigError, match=r"^labels\.noise=0\.5: must be 0"):
        made(classes(2, 10), 2, labels=ClientRate(noise=0.5))


def test_validation_keeps_unseen_classes():
    split = made(classes(10, 100), 5, validation=0.2)
    pool = np.setdiff1d(np.arange(1000), split.train_index)
    np.testing.assert_array_equal(np.bincount(classes(10, 100).train.y[pool]), [20] * 10)
    assert split.kinds.tolist() == [0] * 6 + [1] + [2] * 3


@pytest.mark.parametrize("options", [{"seen_ratio": 0.0}, {"seen_ratio": 1.0}, {"groups": 0}, {"layout": "shared"}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(ConfigError, match=f"^partition.{next(iter(options))}="):
        PARTITIONS.create({"name": "open_world", **options})


def test_parts_are_sorted():
    y = CIFAR10.train.y
    for part in OpenWorld().assign(y, np.full(len(y), -1), 7, Rng(3)):
        assert (np.diff(part) > 0).all()
