from __future__ import annotations

import math

import numpy as np
import pytest

from fedssl.metrics.fairness import spread


def test_spread_of_hand_computed_numbers():
    found = spread(np.array([0.2, 0.4, np.nan, 0.6, 0.8]))
    # Pairs differ by 0.2 (3 pairs), 0.4 (2), 0.6 (1), each counted twice: 4.0 / (2 * 16 * 0.5).
    assert found["gini"] == pytest.approx(0.25)
    assert found["mean"] == pytest.approx(0.5)
    assert found["std"] == pytest.approx(math.sqrt(0.05))
    assert found["p10"] == pytest.approx(0.2 + 0.3 * 0.2)
    assert (found["min"], found["max"]) == (0.2, 0.8)


def test_gini_is_zero_for_equals_and_near_one_for_one_owner():
    assert spread(np.full(5, 0.3))["gini"] == pytest.approx(0)
    assert spread(np.zeros(5))["gini"] == 0
    assert spread(np.array([0.0, 0.0, 0.0, 1.0]))["gini"] == pytest.approx(0.75)


def test_nobody_gives_nan():
    assert all(math.isnan(value) for value in spread(np.array([np.nan])).values())
