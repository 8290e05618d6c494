from __future__ import annotations

import math

import pytest
import torch

from fedssl.pretraining.scores import effective_rank, linear_accuracy, neighbours


def separable(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(90) % 3
    noise = 0.05 * torch.randn(90, 4, generator=torch.Generator().manual_seed(seed))
    return torch.eye(4)[y] + noise, y


def test_separable_features_are_told_apart():
    (bank, y), (x, true) = separable(0), separable(1)
    assert torch.equal(neighbours(bank, y, x), true)
    assert linear_accuracy(bank, y, x, true) == 1.0


def test_neighbours_are_by_angle_and_nearer_ones_weigh_more():
    bank = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    y = torch.tensor([0, 1, 1])
    # At 30 degrees: exp(0.866 / 0.07) for class 0 exceeds 2 exp(0.5 / 0.07) for class 1.
    x = torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)], [0.0, 0.1]])
    assert neighbours(bank, y, x).tolist() == [0, 1]
    # At 45 degrees both are equally near, so that two outvote one.
    assert neighbours(bank, y, torch.tensor([[5.0, 5.0]])).tolist() == [1]
    assert neighbours(bank, y, torch.tensor([[5.0, 4.9]]), count=1).tolist() == [0]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_rank_of_the_identity_is_its_size(count):
    assert effective_rank(torch.eye(count)) == pytest.approx(count)


def test_rank_of_parallel_rows_is_one_and_of_known_singular_values_their_entropy():
    assert effective_rank(torch.outer(torch.arange(1.0, 5), torch.tensor([1.0, 2.0, 3.0]))) == pytest.approx(1)
    # Singular values 3 and 1: shares 0.75 and 0.25.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy))
