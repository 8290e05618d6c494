from __future__ import annotations

import math

import pytest
import torch

from fedssl.losses import supervised, uncertainty

P = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
COUNTS = torch.tensor([2, 1, 0])


@pytest.fixture
def loss(checked):
    return checked(uncertainty, "uncertainty_loss")


@pytest.mark.parametrize(("u", "expected"), [(0.0, 0.407606), (0.3, 0.024745), (0.5, 0.003385), (0.9, 0.003385)])
def test_the_margin_helps_the_true_class_up_to_a_cap(checked, u, expected):
    logits, y = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
    raised = checked(uncertainty, "margin_logits")(logits, y, u)
    assert supervised.cross_entropy(raised, y).item() == pytest.approx(expected, abs=1e-6)


def test_the_margin_of_no_rows_is_nothing(checked):
    found = checked(uncertainty, "margin_logits")(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 0.4)
    assert found.shape == (0, 3)


def test_the_entropy_term_is_least_for_a_uniform_mean(checked):
    term = checked(uncertainty, "entropy_term")
    assert term(torch.eye(10)).item() == pytest.approx(-math.log(10), abs=1e-6)
    collapsed = torch.eye(10)[[3, 3, 3]]
    assert term(collapsed).item() == pytest.approx(9e-8 * math.log(1e-8), abs=1e-9)  # the clamp of nine zeros
    assert term(torch.zeros(0, 10)).item() == 0


@pytest.mark.parametrize(
    ("reading", "expected"),
    [("A", [1, 0.447214, 0.2]), ("B", [1, 0.447214, 0.2]), ("C", [0.2, 0.447214, 1])],
)
def test_weights_follow_from_how_often_a_class_is_predicted(reading, expected):
    # Counts 2, 1, 0 of a most of 2: exponents 0, 1/2, 1 (A) and 1, 1/2, 0 (C).
    weights = uncertainty.class_weights(COUNTS, 0.2, reading)
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("reading", "expected"), [("A", 0.296481), ("B", -0.296481), ("C", 0.083148), ("off", 0)])
def test_each_reading_of_r(loss, reading, expected):
    assert loss(P, COUNTS, 0.2, reading).item() == pytest.approx(expected, abs=1e-6)


def test_the_released_codes_form_is_a_third_of_it_for_three_classes(loss):
    assert loss(P, COUNTS, 0.2, "A").item() / 3 == pytest.approx(0.098827, abs=1e-6)


def test_the_released_codes_constant_counts_give_its_constant_weight():
    weights = uncertainty.class_weights(torch.tensor([8000, 1600]), 0.2, "A")
    assert weights.tolist() == pytest.approx([1, 0.275946], abs=1e-6)


def test_one_hot_rows_cost_nothing(loss):
    assert loss(torch.eye(3), COUNTS, 0.2, "A").item() == 0


@pytest.mark.parametrize("reading", ["A", "C"])
def test_nothing_predicted_yet_weighs_all_by_tau(loss, reading):
    found = loss(P, torch.zeros(3, dtype=torch.int64), 0.2, reading).item()
    assert found == pytest.approx(0.2 * (0.3 + 0.5 + 0.2) / 3)


def test_the_gradient_is_the_weight_alone(loss):
    p = P.clone().requires_grad_()
    loss(p, COUNTS, 0.2, "A").backward()
    expected = torch.tensor([[-1 / 3, 0, 0], [-1 / 3, 0, 0], [0, -0.447214 / 3, 0]])
    torch.testing.assert_close(p.grad, expected, rtol=0, atol=1e-6)


def test_no_rows_cost_nothing_and_keep_the_graph(loss):
    p = torch.zeros(0, 3, requires_grad=True)
    value = loss(p, COUNTS, 0.2, "A")
    value.backward()
    assert value.item() == 0


def test_another_reading_is_refused(loss):
    with pytest.raises(ValueError, match="'D' is not A, B, C or off"):
        loss(P, COUNTS, 0.2, "D")
