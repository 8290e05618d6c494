"""Tests of the sensing task: F1 over the classes a person has."""

from __future__ import annotations

import numpy as np
import pytest

from fedssl.tasks.sensing import Sensing

KINDS = np.zeros(3, np.int8)


def logits_of(predicted: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[predicted]


def test_f1_by_hand():
    found = Sensing().score(logits_of([0, 0, 0, 1, 1, 1, 2, 0]), np.array([0, 0, 0, 0, 1, 1, 2, 2]), KINDS)
    assert found["macro_f1"] == pytest.approx((0.75 + 0.8 + 2 / 3) / 3)
    assert found["weighted_f1"] == pytest.approx(0.5 * 0.75 + 0.25 * 0.8 + 0.25 * 2 / 3)
    assert found["accuracy"] == 0.75


def test_a_class_that_is_only_predicted_has_no_f1_but_costs_the_true_one():
    found = Sensing().score(logits_of([0, 2, 1, 1]), np.array([0, 0, 1, 1]), KINDS)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_each_client_has_a_macro_f1_of_its_own_rows():
    y = np.array([0, 0, 1, 1])
    found = Sensing().by_client(logits_of([0, 2, 1, 1]), y, np.array([0, 1, 2, 3]), np.array([0, 2, 4]), KINDS)
    assert found[Sensing.main_metric].tolist() == pytest.approx([2 / 3, 1.0])


def test_rows_of_unknown_class_are_left_out():
    found = Sensing().score(logits_of([0, 1, 2]), np.array([0, -1, 2]), KINDS)
    assert (found["weighted_f1"], found["macro_f1"]) == (1.0, 1.0)


def test_nothing_to_score_is_nan():
    assert np.isnan(Sensing().score(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), KINDS)["weighted_f1"])
