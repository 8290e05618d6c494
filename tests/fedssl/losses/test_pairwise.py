from __future__ import annotations

import math

import pytest
import torch

from fedssl.losses import pairwise


@pytest.fixture
def loss(checked):
    return checked(pairwise, "pairwise_loss")


@pytest.fixture
def choose(checked):
    return checked(pairwise, "choose_partners")


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_pairs_loss_is_minus_the_log_of_the_product(loss):
    p, partner = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.6, 0.3, 0.1]])
    assert loss(p, partner).item() == pytest.approx(-math.log(0.49), abs=1e-6)
    assert -math.log(0.49) == pytest.approx(0.713350, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "partner", "expected"),
    [
        (torch.eye(10)[:1], torch.eye(10)[:1], 0.0),
        (torch.full((2, 10), 0.1), torch.full((2, 10), 0.1), 2.302585),
        (torch.eye(10)[:1], torch.eye(10)[1:2], 18.420681),
    ],
    ids=["same", "uniform", "orthogonal"],
)
def test_extreme_pairs(loss, p, partner, expected):
    assert loss(p, partner).item() == pytest.approx(expected, abs=1e-5)


def test_no_pairs_cost_nothing(loss):
    assert loss(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0


def test_an_unlabelled_row_takes_the_nearest_of_all_other_rows(choose):
    # Rows 0 and 1 are labelled; row 2 points almost as row 1 does; lengths do not matter.
    features = torch.tensor([[1.0, 0.0], [0.1, 5.0], [0.0, 1.0], [-1.0, 1.1], [-3.0, 0.1]])
    partner = choose(features, torch.tensor([4, 2]), drawn())
    assert partner.tolist() == [0, 1, 1, 2, 3]


def test_a_labelled_row_takes_another_of_its_class_and_each_equally_often(choose):
    y = torch.tensor([1, 0, 1, 2, 1, 0, 1])
    generator = drawn()
    found = torch.stack([choose(torch.zeros(7, 2), y, generator) for _ in range(3000)])
    assert torch.equal(y[found], y.expand(3000, 7))
    assert (found[:, 3] == 3).all()  # alone in its class
    assert (found[:, 1] == 5).all()
    assert (found[:, 5] == 1).all()
    counts = torch.bincount(found[:, 2], minlength=7)
    assert counts[[1, 2, 3, 5]].tolist() == [0, 0, 0, 0]
    # 1000 expected of each, with a standard deviation of 26.
    assert all(900 < count < 1100 for count in counts[[0, 4, 6]].tolist())


def test_one_seed_gives_one_choice(choose):
    y = torch.tensor([0] * 20)
    first, again = (choose(torch.zeros(20, 2), y, drawn(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, choose(torch.zeros(20, 2), y, drawn(4)))


@pytest.mark.parametrize(
    ("labelled", "rows", "expected"), [(0, 2, [1, 0]), (2, 2, [1, 0]), (1, 2, [0, 0]), (0, 1, [0]), (0, 0, [])]
)
def test_small_batches(choose, labelled, rows, expected):
    features = torch.ones(rows, 3)
    assert choose(features, torch.zeros(labelled, dtype=torch.int64), drawn()).tolist() == expected


def test_no_gradient_reaches_the_features(choose):
    features = torch.eye(3, requires_grad=True)
    assert not choose(features, torch.tensor([0]), drawn()).requires_grad
