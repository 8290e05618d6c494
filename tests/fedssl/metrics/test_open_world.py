from __future__ import annotations

import math

import beartype
import jaxtyping
import numpy as np
import pytest

from fedssl.metrics import open_world

KINDS = np.array([0, 0, 1, 2], np.int8)
TRUE = np.repeat(np.arange(4), 4)
NAMES = [
    "accuracy_all",
    "accuracy_all_paper",
    "accuracy_globally_unseen",
    "accuracy_locally_unseen",
    "accuracy_seen",
    "accuracy_unseen",
    "accuracy_unseen_strict",
    "nmi_unseen",
]


@pytest.fixture
def metrics(monkeypatch):
    """The module's functions, with the shapes in their annotations checked at run time."""
    for kind in ("Bool", "Float", "Int"):
        monkeypatch.setattr(open_world, kind, getattr(jaxtyping, kind), raising=False)
    monkeypatch.setattr(open_world, "ndarray", np.ndarray, raising=False)
    check = jaxtyping.jaxtyped(typechecker=beartype.beartype)
    for name in ("matching", "matched_accuracy", "strict_accuracy", "scores", "nmi", "aligned"):
        monkeypatch.setattr(open_world, name, check(getattr(open_world, name)))
    return open_world


def digits(text):
    return np.array([int(c) for c in text.replace(" ", "")])


def test_the_scores_of_a_mixed_prediction(metrics):
    found = metrics.scores(digits("0002 1111 3331 2211"), TRUE, KINDS)
    assert sorted(found) == NAMES
    assert found["accuracy_seen"] == 0.875
    assert found["accuracy_unseen"] == 0.625
    assert found["accuracy_locally_unseen"] == 0.75
    assert found["accuracy_globally_unseen"] == 0.5
    assert found["accuracy_all"] == 0.75
    assert found["accuracy_all_paper"] == 0.75


def test_two_classes_in_one_cluster_show_in_the_joint_unseen_score_alone(metrics):
    found = metrics.scores(digits("0000 1111 3333 3333"), TRUE, KINDS)
    assert found["accuracy_unseen"] == 0.5
    assert found["accuracy_locally_unseen"] == found["accuracy_globally_unseen"] == 1.0
    assert found["nmi_unseen"] == 0.0


def test_an_unseen_class_called_a_seen_one_shows_in_the_strict_and_joint_scores(metrics):
    found = metrics.scores(digits("0000 1111 0000 3333"), TRUE, KINDS)
    assert found["accuracy_unseen"] == 1.0
    assert found["accuracy_unseen_strict"] == 0.5
    assert found["accuracy_all"] == 0.75
    assert found["nmi_unseen"] == pytest.approx(1.0)


def test_clusters_with_swapped_numbers_are_right_and_seen_classes_with_swapped_names_wrong(metrics):
    found = metrics.scores(digits("1111 0000 3333 2222"), TRUE, KINDS)
    assert found["accuracy_seen"] == 0.0
    assert found["accuracy_unseen"] == found["accuracy_unseen_strict"] == found["accuracy_all"] == 1.0
    assert found["accuracy_all_paper"] == 0.5


def test_the_papers_form_weighs_by_the_samples_scored(metrics):
    # 3 seen rows, 2 of them right; 1 unseen row, which any matching makes right.
    found = metrics.scores(digits("001 0"), digits("000 3"), KINDS)
    assert found["accuracy_seen"] == pytest.approx(2 / 3)
    assert found["accuracy_all_paper"] == pytest.approx(3 / 4 * 2 / 3 + 1 / 4)


def test_nmi_of_hand_computed_numbers(metrics):
    # Counts [[2, 0], [1, 1]]: H(true) = ln 2, H(predicted) = H(3/4, 1/4).
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    mutual = 0.5 * math.log(0.5 / 0.375) + 0.25 * math.log(0.25 / 0.375) + 0.25 * math.log(0.25 / 0.125)
    assert metrics.nmi(digits("2223"), digits("2233")) == pytest.approx(2 * mutual / (entropy + math.log(2)))


def test_nothing_is_nan_and_never_zero(metrics):
    none = np.zeros(0, np.int64)
    assert all(math.isnan(value) for value in metrics.scores(none, none, KINDS).values())
    seen = metrics.scores(digits("0001"), digits("0011"), KINDS)
    assert {name for name, value in seen.items() if math.isnan(value)} == {
        "accuracy_globally_unseen",
        "accuracy_locally_unseen",
        "accuracy_unseen",
        "accuracy_unseen_strict",
        "nmi_unseen",
    }
    assert seen["accuracy_seen"] == seen["accuracy_all_paper"] == seen["accuracy_all"] == 0.75
    unseen = metrics.scores(digits("22"), digits("23"), KINDS)
    assert math.isnan(unseen["accuracy_seen"])
    assert unseen["accuracy_all_paper"] == unseen["accuracy_unseen"] == 0.5


def test_a_class_without_training_samples_counts_in_the_joint_score_alone(metrics):
    kinds = np.array([0, 0, 1, -1], np.int8)
    found = metrics.scores(digits("0000 1111 2222 0000"), TRUE, kinds)
    assert found["accuracy_seen"] == found["accuracy_unseen"] == found["accuracy_all_paper"] == 1.0
    assert found["accuracy_all"] == 0.75
    assert math.isnan(found["accuracy_globally_unseen"])


def test_the_matching_is_the_best_of_all_permutations(metrics):
    from itertools import permutations

    rng = np.random.default_rng(0)
    for _ in range(20):
        predicted, y = rng.integers(0, 4, (2, 30))
        best = max(float((np.array(p)[predicted] == y).mean()) for p in permutations(range(4)))
        assert metrics.matched_accuracy(predicted, y, 4) == pytest.approx(best)


def test_what_no_row_decides_keeps_its_number(metrics):
    assert metrics.matching(digits("22"), digits("22"), 5).tolist() == [0, 1, 2, 3, 4]
    assert metrics.matching(digits("11"), digits("33"), 5).tolist() == [0, 3, 2, 1, 4]


def test_alignment_moves_columns_to_their_classes(metrics):
    # Cluster 0 holds class 2, cluster 1 class 0, cluster 2 class 1: a cycle, so the inverse is another permutation.
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]] * 5
    moved = metrics.aligned(logits, np.array([2, 2, 0, 1]))
    np.testing.assert_array_equal(moved, np.eye(3)[[2, 2, 0, 1]] * 5)
    np.testing.assert_array_equal(metrics.aligned(logits, np.full(4, -1)), logits)
