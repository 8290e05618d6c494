from __future__ import annotations

import math

import beartype
import jaxtyping
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from fedssl.metrics import classification, reliability

NAMES = ("accuracy", "macro_f1", "loss", "ece", "brier")


@pytest.fixture
def metrics(monkeypatch):
    """The module's scores, with the shapes in their annotations checked at run time."""
    for kind in ("Float", "Int"):
        monkeypatch.setattr(classification, kind, getattr(jaxtyping, kind), raising=False)
    monkeypatch.setattr(classification, "ndarray", np.ndarray, raising=False)
    check = jaxtyping.jaxtyped(typechecker=beartype.beartype)
    return {name: check(getattr(classification, name)) for name in NAMES}


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 5)).astype(np.float32) * 2
    return logits, rng.integers(0, 4, 400)  # class 4 is predicted, never true


def test_scores_agree_with_sklearn(metrics, sample):
    logits, y = sample
    predicted = logits.argmax(axis=1)
    probabilities = np.exp(classification.log_softmax(logits))
    f1 = f1_score(y, predicted, labels=np.unique(y), average="macro")
    assert metrics["accuracy"](logits, y) == pytest.approx(accuracy_score(y, predicted))
    assert metrics["macro_f1"](logits, y) == pytest.approx(f1, abs=1e-12)
    assert metrics["loss"](logits, y) == pytest.approx(log_loss(y, probabilities, labels=range(5)))


def test_brier_is_the_squared_distance_to_the_one_hot_truth(metrics):
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]]))
    expected = (0.09 + 0.04 + 0.01 + 0.0625 + 0.25 + 0.5625) / 2
    assert metrics["brier"](logits, np.array([0, 2])) == pytest.approx(expected)


def test_ece_weighs_each_bins_gap_by_its_share(metrics):
    # Three rows in one bin: confidence 0.9, 2 of 3 right; one row in another: 0.6, right.
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]))
    expected = 3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.4
    assert metrics["ece"](logits, np.array([0, 0, 1, 0])) == pytest.approx(expected)


def test_large_logits_do_not_overflow(metrics):
    assert metrics["loss"](np.array([[1e4, 0.0]]), np.array([1])) == 1e4


def test_no_rows_give_nan_and_no_warning(metrics):
    logits, y = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    assert all(math.isnan(score(logits, y)) for score in metrics.values())


def test_unequal_numbers_of_rows_are_refused_by_the_annotations(metrics):
    with pytest.raises(jaxtyping.TypeCheckError):
        metrics["accuracy"](np.zeros((2, 3)), np.zeros(3, np.int64))


def test_reliability_bins_are_closed_above():
    logits = np.array([[0.0, 0.0], [0.0, 0.0], [np.log(3), 0.0]])  # confidence 1/2, 1/2, 3/4
    found = reliability.reliability(logits, np.array([0, 1, 0]), bins=2)
    assert found["count"] == [2.0, 1.0]
    assert found["accuracy"] == [0.5, 1.0]
    assert found["confidence"] == pytest.approx([0.5, 0.75])


def test_reliability_reproduces_the_ece(sample):
    logits, y = sample
    bins = {name: np.array(values) for name, values in reliability.reliability(logits, y).items()}
    gap = bins["count"] * np.abs(bins["confidence"] - bins["accuracy"])
    assert len(gap) == 15
    assert gap.sum() / len(y) == pytest.approx(classification.ece(logits, y))
    assert sum(reliability.reliability(logits[:0], y[:0])["count"]) == 0
