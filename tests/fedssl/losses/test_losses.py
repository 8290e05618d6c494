from __future__ import annotations

import math

import jaxtyping
import pytest
import torch

from fedssl.losses import pseudo_label, supervised


def test_cross_entropy_is_the_mean_of_the_rows(checked):
    cross_entropy = checked(supervised, "cross_entropy")
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    loss = cross_entropy(logits, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_an_empty_batch_costs_nothing_and_keeps_the_graph(checked):
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = checked(supervised, "cross_entropy")(logits, torch.zeros(0, dtype=torch.int64))
    weak = torch.zeros(0, 3)
    consistency, _, mask = checked(pseudo_label, "pseudo_label_loss")(weak, logits, 0.95)
    (loss + consistency).backward()
    assert loss.item() == consistency.item() == 0.0
    assert mask.shape == (0,)
    assert logits.grad is not None


def test_consistency_counts_confident_rows_over_all_rows(checked):
    weak = torch.log(torch.tensor([[0.96, 0.04], [0.90, 0.10], [0.02, 0.98]]))
    strong = torch.log(torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.75, 0.25]]))
    loss, label, mask = checked(pseudo_label, "pseudo_label_loss")(weak, strong, 0.95)
    assert label.tolist() == [0, 0, 1]
    assert mask.tolist() == [True, False, True]
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 3)


def test_the_threshold_itself_is_confident_enough(checked):
    even = torch.zeros(1, 2)
    _, _, mask = checked(pseudo_label, "pseudo_label_loss")(even, even, 0.5)
    assert mask.tolist() == [True]


def test_no_gradient_reaches_the_weak_view(checked):
    weak = torch.tensor([[5.0, 0.0]], requires_grad=True)
    strong = torch.tensor([[0.0, 0.0]], requires_grad=True)
    checked(pseudo_label, "pseudo_label_loss")(weak, strong, 0.5)[0].backward()
    assert weak.grad is None
    assert strong.grad.tolist() == [[-0.5, 0.5]]


def test_views_of_unequal_size_are_refused_by_the_annotations(checked):
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(pseudo_label, "pseudo_label_loss")(torch.zeros(2, 3), torch.zeros(3, 3), 0.5)
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(supervised, "cross_entropy")(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
