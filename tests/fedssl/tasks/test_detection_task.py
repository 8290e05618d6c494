"""Tests of fedssl.tasks.detection: metrics by weather and client."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedssl.data.base import Dataset, Samples
from fedssl.metrics.detection import FlatBoxes
from fedssl.tasks.base import TASKS

KINDS = np.zeros(2, np.int8)
WEATHERS = ("cloudy", "overcast", "rainy", "snowy")


def scenes() -> Dataset:
    """Eight pictures, two a weather; each has a `car` and every second a `bus` as well."""
    offsets = np.array([0, 1, 3, 4, 6, 7, 9, 10, 12])
    xyxy = np.tile(np.array([[0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]], np.float32), (4, 1))
    label = np.tile([0, 0, 1], 4)
    samples = Samples(
        np.zeros((8, 32, 32, 3), np.uint8),
        np.tile([0, 1], 4),
        np.zeros(8, np.int64),
        boxes=xyxy,
        box_class=label,
        box_offsets=offsets,
        domain=np.repeat(np.arange(4), 2),
    )
    zeros = (0.0, 0.0, 0.0)
    ones = (1.0, 1.0, 1.0)
    return Dataset("scenes", samples, samples, ("car", "bus"), zeros, ones, "", domain_names=WEATHERS)


def answers(dataset: Dataset, lost: list[int]) -> FlatBoxes:
    """Give the true boxes but those of some rows."""
    test = dataset.test
    kept = np.ones(len(test.boxes), bool)
    kept[lost] = False
    before = np.concatenate([[0], np.cumsum(kept)])
    return FlatBoxes(test.boxes[kept], test.box_class[kept], before[test.box_offsets], np.ones(kept.sum(), np.float32))


def test_scores_by_class_and_weather_and_their_total():
    dataset, task = scenes(), TASKS.create({"name": "detection"})
    truth = task.truth(dataset, dataset.test, np.arange(8))
    # Lost: both cars of overcast, the bus of rainy, all of snowy.
    found = task.score(answers(dataset, [3, 4, 8, 9, 10, 11]), truth, KINDS)
    half = 51 / 101
    assert found["map50_cloudy"] == pytest.approx(1.0)
    assert found["map50_overcast"] == pytest.approx(0.5)
    assert found["map50_rainy"] == pytest.approx(0.5)
    assert found["map50_snowy"] == 0.0
    assert found["map50_total"] == pytest.approx(0.5)
    assert found["ap50_car"] == pytest.approx(half)
    assert found["ap50_bus"] == pytest.approx(half)
    assert found["map50"] == pytest.approx(half)
    assert found["map75"] == pytest.approx(half)
    assert task.main_metric == "map50"


def test_the_total_is_the_mean_over_the_weathers_as_in_the_paper_s_table():
    from fedssl.metrics.detection import mean_over

    assert mean_over(np.array([0.596, 0.607, 0.590, 0.580])) == pytest.approx(0.59325)
    assert mean_over(np.array([0.540, 0.545, 0.484, 0.474])) == pytest.approx(0.51075)


def test_unknown_classes_and_weathers_are_nan():
    dataset, task = scenes(), TASKS.create({"name": "detection"})
    index = np.array([0, 2])
    found = task.score(answers(dataset, []).take(index), task.truth(dataset, dataset.test, index), KINDS)
    assert found["map50"] == found["map50_cloudy"] == found["map50_overcast"] == found["map50_total"] == 1.0
    assert all(math.isnan(found[name]) for name in ("map50_rainy", "map50_snowy", "ap50_bus"))


def test_a_client_s_numbers_are_those_of_its_own_pictures():
    dataset, task = scenes(), TASKS.create({"name": "detection"})
    said, truth = answers(dataset, [3, 4, 8]), task.truth(dataset, dataset.test, np.arange(8))
    held = [np.array([2, 3]), np.array([4, 5]), np.array([2, 3]), np.zeros(0, np.int64), np.arange(8)]
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in held])])
    columns = task.by_client(said, truth, np.concatenate(held), offsets, KINDS)
    for client, rows in enumerate(held):
        alone = task.score(said.take(rows), task.truth(dataset, dataset.test, rows), KINDS)
        for name in ("map50", "map75"):
            np.testing.assert_equal(columns[name][client], alone[name])
    assert columns["map50"][:3].tolist() == [0.5, 0.5, 0.5]
    assert np.isnan(columns["map50"][3])


def test_pictures_of_no_weather_have_no_scores_by_weather():
    dataset, task = scenes(), TASKS.create({"name": "detection"})
    plain = Dataset("plain", dataset.train, dataset.test, dataset.class_names, dataset.mean, dataset.std, "")
    found = task.score(answers(dataset, []), task.truth(plain, plain.test, np.arange(8)), KINDS)
    assert sorted(found) == ["ap50_bus", "ap50_car", "map50", "map75"]
