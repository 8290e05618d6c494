from __future__ import annotations

import math

import numpy as np
import pytest

from fedssl.metrics import classification
from fedssl.tasks.base import TASKS

KINDS = np.array([0, 0, 1, 2], np.int8)
TRUE = np.repeat(np.arange(4), 4)
PREDICTED = np.array([0, 0, 0, 2, 1, 1, 1, 1, 3, 3, 3, 1, 2, 2, 1, 1])


@pytest.fixture
def task():
    return TASKS.create({"name": "open_world"})


def logits_of(predicted, size=4.0):
    return size * np.eye(4, dtype=np.float32)[predicted]


def test_scores_hold_the_open_world_ones_and_probabilities(task):
    found = task.score(logits_of(PREDICTED), TRUE, KINDS)
    assert found[task.main_metric] == found["accuracy_all"] == 0.75
    assert (found["accuracy_seen"], found["accuracy_unseen"]) == (0.875, 0.625)
    # Matched 2 -> 3 and 3 -> 2, 12 of 16 rows are right with p = e^4 / (e^4 + 3).
    p, q = math.exp(4) / (math.exp(4) + 3), 1 / (math.exp(4) + 3)
    assert found["loss"] == pytest.approx(-0.75 * math.log(p) - 0.25 * math.log(q), abs=1e-6)
    assert found["ece"] == pytest.approx(p - 0.75, abs=1e-6)
    right, wrong = (1 - p) ** 2 + 3 * q**2, p**2 + (1 - q) ** 2 + 2 * q**2
    assert found["brier"] == pytest.approx(0.75 * right + 0.25 * wrong, abs=1e-6)


def test_a_prediction_of_names_that_fit_scores_as_a_classifiers(task):
    plain = TASKS.create({"name": "classification"})
    rng = np.random.default_rng(0)
    logits = (logits_of(TRUE, 2.0) + rng.normal(size=(16, 4))).astype(np.float32)
    kinds = np.zeros(4, np.int8)
    found, expected = task.score(logits, TRUE, kinds), plain.score(logits, TRUE, kinds)
    assert found["accuracy_all"] == found["accuracy_seen"] == expected["accuracy"] > 0.5
    for name in ("loss", "ece", "brier"):
        assert found[name] == expected[name]


def test_rows_of_unknown_class_are_left_out(task):
    logits = np.concatenate([logits_of(PREDICTED), logits_of([3, 3, 3, 3, 3])])
    y = np.concatenate([TRUE, np.full(5, -1)])
    found, expected = task.score(logits, y, KINDS), task.score(logits_of(PREDICTED), TRUE, KINDS)
    assert found == expected


@pytest.mark.parametrize("shape", [(0, 0), (3, 4)], ids=["no rows", "no known row"])
def test_nothing_to_score_is_nan(task, shape):
    found = task.score(np.zeros(shape, np.float32), np.full(shape[0], -1), KINDS)
    assert len(found) == 11
    assert all(math.isnan(value) for value in found.values())
    columns = task.by_client(
        np.zeros(shape, np.float32), np.full(shape[0], -1), np.arange(shape[0]), np.array([0, 0, shape[0]]), KINDS
    )
    assert all(np.isnan(values).tolist() == [True, True] for values in columns.values())


def test_clients_are_scored_after_one_matching_of_all_rows(task):
    # Client 0 holds one row of each class, client 1 the rows of class 3, client 2 nothing.
    index, offsets = np.array([3, 4, 8, 14, 12, 13, 14, 15]), np.array([0, 4, 8, 8])
    found = task.by_client(logits_of(PREDICTED), TRUE, index, offsets, KINDS)
    assert sorted(found) == ["accuracy_all", "accuracy_seen", "accuracy_unseen", "brier", "loss", "macro_f1"]
    # Matched 2 -> 3 and 3 -> 2, row 8 becomes right and rows 3 and 14 stay wrong.
    np.testing.assert_array_equal(found["accuracy_all"], [0.5, 0.5, np.nan])
    np.testing.assert_array_equal(found["accuracy_seen"], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(found["accuracy_unseen"], [0.5, 0.5, np.nan])


def test_clients_mean_is_the_score_of_all_rows(task):
    rng = np.random.default_rng(1)
    logits, y = rng.normal(size=(200, 4)).astype(np.float32), rng.integers(0, 4, 200)
    found = task.by_client(logits, y, rng.permutation(200), np.array([0, 50, 100, 150, 200]), KINDS)
    whole = task.score(logits, y, KINDS)
    for name in ("accuracy_all", "loss", "brier"):
        assert found[name].mean() == pytest.approx(whole[name])


def test_accuracy_by_class_is_the_joint_score(task):
    logits = logits_of(PREDICTED)
    assert classification.accuracy(task.by_class(logits, TRUE), TRUE) == 0.75
