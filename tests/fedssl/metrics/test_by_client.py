from __future__ import annotations

from itertools import pairwise

import numpy as np

from fedssl.metrics import classification
from fedssl.metrics.base import score_clients
from fedssl.metrics.by_client import ClientRows


def by_client(*rows: np.ndarray) -> dict[str, np.ndarray]:
    return score_clients("classification", {"logits": (ClientRows(*rows),)})


def test_every_client_scores_as_if_alone():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 6)).astype(np.float32)
    y = rng.integers(0, 6, 300)
    sizes = np.array([50, 0, 1, 120, 7])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    index = rng.integers(0, 300, offsets[-1])
    found = by_client(logits, y, index, offsets)
    assert sorted(found) == ["accuracy", "brier", "loss", "macro_f1"]
    for name, values in found.items():
        for client, (start, stop) in enumerate(pairwise(offsets)):
            held = index[start:stop]
            alone = getattr(classification, name)(logits[held], y[held])
            np.testing.assert_allclose(values[client], alone, rtol=1e-12, equal_nan=True)
    assert np.isnan(found["accuracy"][1])


def test_rows_of_unknown_class_are_left_out():
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    y = np.array([0, -1, 1])
    found = by_client(logits, y, np.array([0, 1, 2, 1]), np.array([0, 3, 4]))
    np.testing.assert_array_equal(found["accuracy"], [0.5, np.nan])


def test_no_samples_at_all_give_nan():
    found = by_client(np.zeros((0, 0)), np.zeros(0, int), np.zeros(0, int), np.zeros(4, int))
    assert {len(values) for values in found.values()} == {3}
    assert all(np.isnan(values).all() for values in found.values())
