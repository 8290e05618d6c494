from __future__ import annotations

import math

import pytest
import torch

from fedssl.data.views.modality import model_input
from fedssl.losses import reconstruction
from fedssl.losses.reconstruction import median_threshold, similar, similar_sets

ROWS = torch.tensor([[0.0, 0, 0], [0.1, 0.1, 0.1], [0.3, 0, 0], [0.2, 0.2, 0.2236068], [1, 1, 1]])
ERROR = ROWS.square().mean(dim=1)


def test_each_sample_is_kept_by_its_own_error(checked):
    torch.testing.assert_close(ERROR, torch.tensor([0, 0.01, 0.03, 0.0433333, 1]))
    assert checked(reconstruction, "similar")(ERROR, 0.05).tolist() == [True, True, True, True, False]


@pytest.mark.parametrize(("size", "kept"), [(5, 0), (4, 4)])
def test_a_batch_is_kept_or_dropped_by_its_mean(size: int, kept: int):
    assert float(ERROR[:4].mean()) == pytest.approx(0.0208333, abs=1e-6)
    assert similar(ERROR, 0.05, "batch", size).tolist() == [True] * kept + [False] * (5 - kept)


def test_an_error_of_tau_itself_is_similar_for_a_sample_and_not_for_a_batch():
    error = torch.full((3,), 0.05)
    assert similar(error, 0.05).all()
    assert not similar(error, 0.05, "batch").any()


def test_the_ends_of_tau():
    assert similar(ERROR, math.inf).equal(similar(ERROR, 0.0, "none"))
    assert similar(ERROR, math.inf, "batch").all()
    assert similar(ERROR, 0.0).tolist() == [True, False, False, False, False]
    assert similar(ERROR[:0], 0.05, "batch").shape == (0,)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="how='median' is not sample, batch or none"):
        similar(ERROR, 0.05, "median")


def test_the_median_keeps_two_of_four():
    error = torch.tensor([0.2, 0.4, 0.6, 0.9])
    assert median_threshold(error) == pytest.approx(0.5)
    assert similar(error, median_threshold(error)).sum() == 2
    assert similar(error[:3], median_threshold(error[:3])).tolist() == [True, True, False]


def sets(error: list[float], y: list[int], domain: list[int], tau: float, how: str = "sample"):
    kept, widened = similar_sets(torch.tensor(error), torch.tensor(y), torch.tensor(domain), tau, how)
    return {m: index.tolist() for m, index in kept.items()}, widened


def test_a_set_of_one_sample_or_one_class_is_left_out():
    error = [0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    assert sets(error, [0, 1, 0, 0, 1, 1], [0, 0, 0, 1, 2, 2], 0.2) == ({0: [0, 1]}, 0)


def test_where_no_set_is_left_the_users_median_is_the_filter():
    assert sets([0.2, 0.4, 0.6, 0.9], [0, 1, 0, 1], [0, 0, 1, 1], 0.05) == ({0: [0, 1]}, 1)


def test_where_the_median_leaves_none_all_samples_count():
    assert sets([0.2, 0.4, 0.6, 0.9], [0, 0, 1, 1], [0, 0, 1, 1], 0.05) == ({0: [0, 1], 1: [2, 3]}, 2)
    assert sets([], [], [], 0.05) == ({}, 2)


def test_batches_follow_the_given_order_within_a_domain():
    error, y = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 1, 1])
    order = torch.tensor([2, 1, 0, 3])
    kept, _ = similar_sets(error, y, torch.zeros(4, dtype=torch.int64), 0.1, "batch", order, 1)
    assert {m: index.tolist() for m, index in kept.items()} == {0: [0, 2]}


def test_a_decoder_that_ends_in_tanh_cannot_give_back_z_scores():
    """The least error is 2 (2 Q(1) - phi(1)) = 0.150680; scaled by 3 deviations, zeros alone have 0.1105."""
    middle = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    z = (math.sqrt(2) * torch.erfinv(2 * middle - 1)).float().reshape(-1, 1, 1)
    scores = model_input(z, [0.0], [1.0])
    assert float((scores - scores.clamp(-1, 1)).square().mean()) == pytest.approx(0.150680, abs=1e-4)
    scaled = model_input(z, [0.0], [3.0], 1.0)
    assert float(scaled.square().mean()) == pytest.approx(0.1105, abs=1e-3)
