from __future__ import annotations

import math

import pytest
import torch

from fedssl.clustering import sinkhorn as module


@pytest.fixture
def sinkhorn(checked):
    return checked(module, "sinkhorn")


def f64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def iterations(scores, sharpness):
    """The least max_iter with which the result is the final one."""
    final = module.sinkhorn(scores, sharpness)
    return next(n for n in range(1, 101) if torch.equal(module.sinkhorn(scores, sharpness, n), final))


def test_identical_rows_are_split_evenly(sinkhorn):
    torch.testing.assert_close(sinkhorn(f64([[0.9, 0.1], [0.9, 0.1]]), 25.0), f64([[0.5, 0.5], [0.5, 0.5]]))


def test_the_identity_stays(sinkhorn):
    torch.testing.assert_close(
        sinkhorn(torch.eye(2, dtype=torch.float64), 25.0), f64([[1, 0], [0, 1]]), rtol=0, atol=1e-10
    )


def test_rows_sum_to_one_and_columns_are_balanced(sinkhorn):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(60, 4, generator=generator, dtype=torch.float64)
    found = sinkhorn(scores, 5.0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(60, dtype=torch.float64))
    torch.testing.assert_close(found.sum(dim=0), torch.full((4,), 15.0, dtype=torch.float64), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("scores", "sharpness", "expected", "within"),
    [
        ([[1.0, 0.0], [0.6, 0.2]], 1.0, 0.574443, 1e-6),
        ([[0.9, 0.1], [0.8, 0.1]], 25.0, 0.7773, 1e-4),
    ],
)
def test_two_by_two_has_a_closed_form(sinkhorn, scores, sharpness, expected, within):
    (a, b), (c, d) = scores
    limit = 1 / (1 + math.exp(-sharpness * ((a - b) - (c - d)) / 2))
    assert limit == pytest.approx(expected, abs=within)
    found = sinkhorn(f64(scores), sharpness)
    torch.testing.assert_close(found, f64([[limit, 1 - limit], [1 - limit, limit]]), rtol=0, atol=within)


def test_it_stops_after_one_iteration_that_changes_little(sinkhorn):
    scores = f64([[0.3, 0.1], [0.2, 0.1]])
    expected = f64([[0.512521, 0.487479], [0.487526, 0.512474]])
    torch.testing.assert_close(sinkhorn(scores, 1.0), expected, rtol=0, atol=1e-6)
    assert iterations(scores, 1.0) == 1


@pytest.mark.parametrize(
    ("sharpness", "first", "last", "number", "within"),
    [
        (1.0, (0.608697, 0.391303), (0.173910, 0.826090), 11, 1e-6),
        (25.0, (0.66668, 0.33332), (0.0, 1.0), 31, 1e-5),
    ],
)
def test_an_unequal_demand_is_balanced_in_a_known_number_of_iterations(
    sinkhorn, sharpness, first, last, number, within
):
    scores = f64([[1, 0], [1, 0], [1, 0], [0, 1]])
    found = sinkhorn(scores, sharpness)
    torch.testing.assert_close(found, f64([first, first, first, last]), rtol=0, atol=within)
    assert iterations(scores, sharpness) == number
    if sharpness == 25.0:
        torch.testing.assert_close(found.sum(dim=0), f64([2.00004, 1.99996]), rtol=0, atol=1e-5)


def test_no_rows_and_scores_beyond_float64s_exponent_are_survived(sinkhorn):
    assert sinkhorn(torch.zeros(0, 3), 25.0).shape == (0, 3)
    found = sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), 2000.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((2, 2), 0.5))


def test_no_gradient_comes_out(sinkhorn):
    assert not sinkhorn(torch.eye(2, requires_grad=True), 25.0).requires_grad
