from __future__ import annotations

import math

import pytest
import torch

from fedssl.losses import mixture
from fedssl.losses.mixture import mixture_loss
from fedssl.models.networks.mixture import log_mixture

Y = torch.tensor([0])


def log_p(*of_truth: float) -> torch.Tensor:
    """Give log p (models, 1, 2) of models that give the true class these probabilities."""
    p = torch.tensor(of_truth)
    return torch.stack([p, 1 - p], dim=1)[:, None].log()


def loss(v: torch.Tensor, *of_truth: float) -> torch.Tensor:
    return mixture_loss(log_mixture(log_p(*of_truth), v.log_softmax(dim=0)), Y)


def test_the_step_of_two_models_by_hand():
    """p = .8, .4, w = 1/2: P = .6; the gradient is -w (p - P) / P."""
    v = torch.zeros(2, requires_grad=True)
    before = loss(v, 0.8, 0.4)
    before.backward()
    assert before.item() == pytest.approx(0.510826, abs=1e-6)
    torch.testing.assert_close(v.grad, torch.tensor([-0.1666667, 0.1666667]))
    after = v.detach() - v.grad
    torch.testing.assert_close(after.softmax(dim=0), torch.tensor([0.582570, 0.417430]))
    assert loss(after, 0.8, 0.4).item() == pytest.approx(0.457240, abs=1e-6)


def test_equal_models_have_nothing_to_weigh():
    v = torch.zeros(3, requires_grad=True)
    loss(v, 0.7, 0.7, 0.7).backward()
    torch.testing.assert_close(v.grad, torch.zeros(3), atol=1e-7, rtol=0)


def test_a_certain_model_among_wrong_ones_wins():
    v = torch.zeros(3, requires_grad=True)
    assert loss(v, 1.0, 0.0, 0.0).item() == pytest.approx(math.log(3), abs=1e-6)
    optimizer = torch.optim.Adam([v], lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        loss(v, 1.0, 0.0, 0.0).backward()
        optimizer.step()
    w = v.detach().softmax(dim=0)
    assert w[0] > 0.9
    assert float(w.sum()) == pytest.approx(1.0, abs=1e-6)
    assert (w >= 0).all()


def test_five_small_steps_cannot_move_the_weights():
    """Adam's step is at most its rate: |v| <= 0.005, so w stays within 0.0023 of 1/3."""
    v = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([v], lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        loss(v, 1.0, 0.0, 0.0).backward()
        optimizer.step()
    assert v.detach().abs().max() <= 0.005 + 1e-6
    assert (v.detach().softmax(dim=0) - 1 / 3).abs().max() < 0.0023


def test_the_loss_is_bounded_and_nothing_costs_nothing(checked):
    bounded = checked(mixture, "mixture_loss")
    assert bounded(torch.tensor([[-math.inf, 0.0]]), Y).item() == pytest.approx(-math.log(1e-8), rel=1e-6)
    empty = torch.zeros(0, 2, requires_grad=True)
    found = bounded(empty, Y[:0])
    found.backward()
    assert found.item() == 0
