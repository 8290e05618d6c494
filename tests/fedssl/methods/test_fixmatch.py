"""Tests of fedssl.methods.fixmatch: the loss by hand on logits that are the views themselves."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedssl.federation import Payload, Step
from fedssl.methods.fixmatch import STRONG, FixMatch
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng

LB = np.array([0], np.int64)
ULB = np.array([1, 2], np.int64)
NONE = np.zeros(0, np.int64)


class Views:
    """Sample 0 is labelled 0; of samples 1 and 2 the model is sure about 1 alone."""

    def __init__(self) -> None:
        self.x_w = torch.tensor([[2.0, 0.0], [4.0, 0.0], [1.0, 0.0]], requires_grad=True)
        self.x_s = torch.tensor([[9.0, 9.0], [0.0, 0.0], [-5.0, 5.0]], requires_grad=True)
        self.keys: list[int] = []

    def weak(self, index: Any, key: int) -> torch.Tensor:
        self.keys.append(key)
        return self.x_w[torch.from_numpy(index)]

    def strong(self, index: Any, key: int) -> torch.Tensor:
        self.keys.append(key)
        return self.x_s[torch.from_numpy(index)]

    def labels(self, index: Any) -> torch.Tensor:
        return torch.zeros(len(index), dtype=torch.int64)

    def truth(self, index: Any) -> torch.Tensor:
        return torch.tensor([0, 0, 1])[torch.from_numpy(index)]


def identity(calls: list[int]) -> Any:
    def model(x: torch.Tensor) -> Any:
        calls.append(len(x))
        return SimpleNamespace(logits=x)

    return model


def test_the_loss_by_hand():
    data, calls = Views(), []
    method = FixMatch(unlabelled_weight=0.5)
    loss, counts = method.loss(identity(calls), data, LB, ULB, 7)  # type: ignore[arg-type]
    # Labelled: -log softmax(2, 0)[0]. Unlabelled: one of two is kept, its strong view says (1/2, 1/2).
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(-2)) + 0.5 * math.log(2) / 2)
    assert calls == [1 + 2 + 2]
    assert counts == {
        "pseudo_mask_rate": (1.0, 2.0),
        "pseudo_precision": (1.0, 1.0),
        "pseudo_coverage": (1.0, 2.0),
    }
    loss.backward()
    assert data.x_w.grad is not None
    assert data.x_s.grad is not None
    # No gradient reaches the weak views of unlabelled samples, nor a strong view that is not kept.
    assert data.x_w.grad[1:].abs().sum() == 0
    torch.testing.assert_close(data.x_s.grad[1], 0.5 * torch.tensor([-0.5, 0.5]) / 2)
    assert data.x_s.grad[2].abs().sum() == 0


def test_without_labels_only_the_unlabelled_term_is_left():
    loss, _ = FixMatch().loss(identity([]), Views(), NONE, ULB, 7)  # type: ignore[arg-type]
    assert float(loss.detach()) == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize(("threshold", "kept"), [(0.0, 2.0), (0.5, 2.0), (0.75, 1.0), (1.0, 0.0)])
def test_the_threshold_is_met_by_what_equals_it(threshold: float, kept: float):
    data = Views()
    data.x_w = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 0.0]])
    _, counts = FixMatch(threshold=threshold).loss(identity([]), data, NONE, ULB, 7)  # type: ignore[arg-type]
    assert counts["pseudo_mask_rate"] == (kept, 2.0)


def test_weak_and_strong_views_are_drawn_apart():
    data = Views()
    FixMatch().loss(identity([]), data, LB, ULB, 7)  # type: ignore[arg-type]
    assert data.keys == [7, 7, 7 + STRONG]


def test_an_epoch_is_one_pass_over_all_samples_in_batches_of_ratio_times_the_labelled(client: Any):
    spec = MODELS.create({"name": "mlp", "hidden": 4})
    model = build_model(spec, (8, 8, 1), 3, Rng(0).torch("initial weights"))
    payload = Payload({name: tensor.clone() for name, tensor in model.state_dict().items()})
    method = FixMatch(batch_size=2, ratio=3, epochs=2)
    update, _ = method.train_client(model, payload, {}, client(4, 14), Step("train", 1, 3, "train", Rng(0, 1, 1)))
    assert update.num_examples == 18
    assert update.metrics["loss"][1] == 2 * 3
    assert update.metrics["pseudo_mask_rate"][1] == 2 * 18
