"""Data that are accepted and hardly what was meant are warned of; sound data are not."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.arrays import check_images, check_integers
from fedssl.data.base import SOURCES, Dataset, Samples
from fedssl.data.checks import check_dataset, check_samples, check_scale, is_cast

NAMES = ("cat", "dog", "owl", "fox")
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (200, 8, 8, 1), np.uint8)
Y = np.arange(200) % 4
WINDOWS = RANDOM.normal(size=(200, 12, 2)).astype(np.float32)


def samples(x=X, y=Y):
    return Samples(x, y.astype(np.int64), np.full(len(y), -1))


def dataset(x=X, y=Y, x_test=None, y_test=None, names=NAMES, warnings=()):
    test_x = RANDOM.permuted(x[:100], axis=0) if x_test is None else x_test
    test_y = Y[: len(test_x)] if y_test is None else y_test
    channels = x.shape[-1]
    known = (0.5,) * channels, (0.3,) * channels
    return Dataset("npz", samples(x, y), samples(test_x, test_y), names, *known, "key", warnings=warnings)


def noise(*shape):
    return RANDOM.integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("x", [X, noise(200, 8, 8, 3), WINDOWS], ids=["grey", "colour", "windows"])
def test_sound_data_are_not_warned_of(x):
    assert check_dataset(dataset(x, x_test=np.roll(x, 1, axis=1)[:100])) == []


@pytest.mark.parametrize("name", ["digits", "fashion_small", "imu_synthetic"])
def test_shipped_data_are_not_warned_of(name):
    assert check_dataset(SOURCES.create({"name": name}).read()) == []


TOO_MANY = tuple(map(str, range(256)))
WARNED = {
    "a gap": (dataset(y=Y % 3, y_test=Y[:100] % 3), "class fox has no training sample"),
    "labels from 1": (
        dataset(y=Y + 1, y_test=Y[:100] + 1, names=("?", *NAMES)),
        "class ? has no training sample; do the labels begin at 1?",
    ),
    "many gaps": (
        dataset(names=TOO_MANY),
        "252 of 256 classes (4, 5, 6, 7, 8, 9 and 246 more) have no training sample",
    ),
    "no label": (dataset(y=np.where(Y == 2, -1, Y)), "class owl has no labelled training sample, and 1 of them"),
    "test only": (dataset(y=Y % 2), "2 of 4 classes (owl, fox) have no training sample, and 2 of them in test samples"),
    "not in test": (dataset(y_test=Y[:100] % 3), "class fox has no test sample, so scores say nothing of it"),
    "numbers": (
        dataset(y=np.arange(200), names=tuple(map(str, range(200)))),
        "200 classes for 200 labelled training samples",
    ),
    "black": (dataset(X * 0), "are the same; were they floats in 0..1, cast to uint8?"),
    "all the same": (dataset(np.repeat(X[:1], 200, axis=0)), "all 200 training images looked at are the same"),
    "one colour": (
        dataset(np.repeat(np.repeat(X[:, :1, :1], 8, axis=1), 8, axis=2)),
        "training images looked at are of one colour",
    ),
    "0 and 1": (dataset(X // 128), "the training images looked at have no pixel above 1 of 255; were they floats"),
    "test 0 and 1": (dataset(x_test=X[:100] // 128), "the test images looked at have no pixel above 1 of 255"),
    "dark test": (
        dataset(x_test=noise(100, 8, 8, 1) // 20),
        "the test data are of another scale than the training data",
    ),
    "other unit": (dataset(WINDOWS * 9.81, x_test=WINDOWS[::-1][:100]), "are they in the same unit?"),
    "still": (dataset(np.repeat(WINDOWS[:, :1], 12, axis=1)), "200 of 200 training windows looked at never change"),
    "test in train": (dataset(x_test=X[50:150]), "100% of the test samples looked at are training samples too"),
    "windows in train": (dataset(WINDOWS, x_test=WINDOWS[50:150]), "100% of the test samples looked at"),
    "copies": (
        dataset(np.concatenate([X[:100]] * 2)),
        "100% of the training samples looked at are there more than once",
    ),
    "of the source": (dataset(warnings=("3 boxes are no boxes",)), "3 boxes are no boxes"),
}


@pytest.mark.parametrize("name", WARNED)
def test_doubtful_data_are_warned_of(name):
    data, words = WARNED[name]
    found = check_dataset(data)
    assert any(words in line for line in found), found
    assert not any("\n" in line for line in found)


def test_a_fault_of_one_part_is_told_once():
    assert len(check_dataset(dataset(x_test=X[:100] // 128))) == 1


def test_a_large_data_set_is_checked_in_a_moment():
    x = noise(60_000, 32, 32, 1)
    large = dataset(x, y=np.arange(60_000) % 4, x_test=noise(10_000, 32, 32, 1), y_test=np.arange(10_000) % 4)
    began = time.perf_counter()
    assert check_dataset(large) == []
    # A tenth of this on an idle core.
    assert time.perf_counter() - began < 1


def test_new_samples_are_compared_with_what_a_model_was_trained_on():
    assert check_scale(X, (0.5,), (0.29,), "new") == []
    assert "the new data are of another scale" in check_scale(X // 20, (0.5,), (0.29,), "new")[0]
    assert check_scale(X[:3] // 20, (0.5,), (0.29,), "new") == []
    assert check_scale(WINDOWS, (0.0, 0.0), (1.0, 1.0), "new") == []
    assert "same unit" in check_scale(WINDOWS / 9.81, (0.0, 0.0), (1.0, 1.0), "new")[0]
    assert check_samples(X[:0], "new") == []
    assert check_samples(X[:1], "new") == []


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_unlabelled_samples_cast_to_an_unsigned_type_are_refused(kind):
    cast = np.array([0, 1, -1], np.int64).astype(kind)
    assert is_cast(cast)
    with pytest.raises(
        ConfigError, match=rf"signed where -1 means unlabelled: {np.iinfo(kind).max} in {kind.__name__}"
    ):
        check_integers("x.npz", "y_train", cast, 3, 999)


def test_256_classes_are_no_cast():
    assert not is_cast(np.arange(256, dtype=np.uint8))
    assert not is_cast(np.array([0, 1, -1]))
    assert check_integers("x.npz", "y_train", np.arange(256, dtype=np.uint8), 256, 999).max() == 255


@pytest.mark.parametrize(
    ("y", "words"),
    [(np.eye(4)[Y], r"take argmax\(axis=1\)"), (Y.astype(np.float32), r"float32; convert it with astype\(int\)")],
)
def test_labels_of_another_form_are_refused_with_the_way_out(y, words):
    with pytest.raises(ConfigError, match=words):
        check_integers("x.npz", "y_train", y, 200, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_channels_first_are_refused_as_such(channels):
    with pytest.raises(ConfigError, match=r"looks like \(n, c, h, w\): transpose it"):
        check_images("x.npz", "x_train", noise(5, channels, 28, 28))
