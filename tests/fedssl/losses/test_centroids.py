from __future__ import annotations

import math

import pytest
import torch

from fedssl.losses import centroids

EYE = torch.eye(2)


@pytest.fixture
def assignment(checked):
    return checked(centroids, "soft_assignment")


@pytest.fixture
def hard(checked):
    return checked(centroids, "hard_centroid_loss")


@pytest.mark.parametrize(
    ("z", "expected"),
    [((1.0, 1.0), (0.5, 0.5)), ((3.0, 4.0), (0.119203, 0.880797)), ((300.0, 400.0), (0.119203, 0.880797))],
)
def test_assignment_depends_on_the_direction_alone(assignment, z, expected):
    found = assignment(torch.tensor([z]), EYE, 0.1)
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("number", "expected"), [(2, 0.999955), (10, 0.999592), (100, 0.995526)])
def test_a_feature_on_its_centroid_is_sure_of_it(assignment, number, expected):
    assert assignment(torch.eye(number)[:1], torch.eye(number), 0.1).max().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("number", "gap"), [(10, 0.514166), (100, 0.753956)])
def test_the_filter_needs_a_known_gap_in_cosine(assignment, number, gap):
    feature = torch.zeros(1, number + 1, dtype=torch.float64)
    feature[0, 0], feature[0, number] = gap, math.sqrt(1 - gap**2)
    rows = torch.eye(number + 1, dtype=torch.float64)[:number]
    assert assignment(feature, rows, 0.1).max().item() == pytest.approx(0.95, abs=1e-6)


def test_cluster_loss_is_the_cross_entropy_of_the_partner(checked, assignment):
    loss = checked(centroids, "cluster_loss")
    q, other = (assignment(torch.tensor([z]), EYE, 0.1) for z in ((3.0, 4.0), (4.0, 3.0)))
    assert loss(q, other).item() == pytest.approx(1.888522, abs=1e-6)
    assert loss(q, q).item() == pytest.approx(0.365334, abs=1e-6)
    assert loss(torch.zeros(0, 2), torch.zeros(0, 2)).item() == 0


def test_cluster_loss_reaches_both_sides(checked):
    q, partner = (torch.tensor([[0.25, 0.75]]).requires_grad_() for _ in range(2))
    checked(centroids, "cluster_loss")(q, partner).backward()
    torch.testing.assert_close(q.grad, -torch.tensor([[0.25, 0.75]]).log())
    torch.testing.assert_close(partner.grad, torch.tensor([[-1.0, -1.0]]))


def test_hard_labels_come_from_rows_above_the_threshold_alone(hard):
    q = torch.tensor([[0.96, 0.04], [0.6, 0.4]], requires_grad=True)
    logits = torch.log(torch.tensor([[0.7, 0.3], [0.2, 0.8]])).requires_grad_()
    loss = hard(q, logits, 0.95)
    loss.backward()
    assert loss.item() == pytest.approx(0.356675, abs=1e-6)
    assert q.grad is None
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.3, 0.3], [0.0, 0.0]]))


@pytest.mark.parametrize("q", [[[0.9, 0.1], [0.6, 0.4]], [[0.95, 0.05], [0.5, 0.5]]], ids=["below", "at"])
def test_no_row_above_the_threshold_costs_exactly_nothing(hard, q):
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = hard(torch.tensor(q), logits, 0.95)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_soft_labels_come_from_all_rows(checked):
    soft = checked(centroids, "soft_centroid_loss")
    q = torch.tensor([[0.75, 0.25], [0.0, 1.0]], requires_grad=True)
    logits = torch.log(torch.tensor([[0.7, 0.3], [0.2, 0.8]])).requires_grad_()
    loss = soft(q, logits)
    loss.backward()
    expected = -(0.75 * math.log(0.7) + 0.25 * math.log(0.3) + math.log(0.8)) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert q.grad is None
    assert soft(torch.zeros(0, 2), torch.zeros(0, 2)).item() == 0


@pytest.mark.parametrize(("number", "expected"), [(10, 0.999592), (100, 0.995526)])
def test_a_cosine_head_of_scale_ten_is_as_sure_as_a_centroid(assignment, number, expected):
    # Logits 10 cos are the scores of q at T = 0.1, so both have the floor -ln p of the labelled loss.
    logits = 10 * torch.eye(number)[:1]
    torch.testing.assert_close(logits.softmax(1), assignment(torch.eye(number)[:1], torch.eye(number), 0.1))
    assert logits.softmax(1)[0, 0].item() == pytest.approx(expected, abs=1e-6)
    if number == 10:
        cost = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
        assert cost.item() == pytest.approx(0.000409, abs=1e-6)
