"""Tests of fedssl.methods.fedavg: steps by hand on a model with two weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedssl.federation import Payload, Step
from fedssl.methods.fedavg import FedAvg
from fedssl.rng import Rng


class Scores(torch.nn.Module):
    """Two classes, one feature: logits = w x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> Any:
        return SimpleNamespace(logits=x[:, None] * self.w)


@dataclass
class Ones:
    """A client all of whose samples are x = 1, y = 0."""

    client_id: int = 5
    num_labelled: int = 2
    num_examples: int = 2
    seen: list[list[int]] = field(default_factory=list)

    @property
    def dataset(self) -> Any:
        return SimpleNamespace(train=SimpleNamespace(holds_boxes=False))

    @property
    def labelled(self) -> NDArray[np.int64]:
        return np.arange(self.num_labelled, dtype=np.int64)

    def weak_batches(self, parts: list[NDArray[np.int64]], key: int) -> Iterator[torch.Tensor]:
        for index in parts:
            self.seen.append(sorted(index.tolist()))
            yield torch.ones(len(index))

    def label_batches(self, parts: list[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        return (torch.zeros(len(index), dtype=torch.int64) for index in parts)


def train(method: FedAvg, data: Ones, w: tuple[float, float] = (0.0, 0.0), round_: int = 1) -> Any:
    payload = Payload({"w": torch.tensor(w)})
    step = Step("train", round_, 16, "train", Rng(0, round_, 5))
    return method.train_client(Scores(), payload, {}, data, step)[0]  # type: ignore[arg-type]


def plain(**options: Any) -> FedAvg:
    return FedAvg(**{"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 2, **options})


def test_one_step_by_hand():
    # softmax(0, 0) = (1/2, 1/2), so the gradient is (-1/2, 1/2) and the loss ln 2.
    update = train(plain(), Ones())
    torch.testing.assert_close(update.state["w"], torch.tensor([0.05, -0.05]))
    assert update.metrics["loss"] == (pytest.approx(math.log(2)), 1)
    assert (update.client_id, update.num_examples) == (5, 2)


def test_weight_decay_and_nesterov_by_hand():
    # Gradient (-1/2 + 1, 1/2 + 1) with decay 1 at w = (1, 1); Nesterov's first step is 1 + momentum of it.
    update = train(plain(weight_decay=1.0, momentum=0.5), Ones(), (1.0, 1.0))
    torch.testing.assert_close(update.state["w"], torch.tensor([1 - 0.1 * 1.5 * 0.5, 1 - 0.1 * 1.5 * 1.5]))


def test_two_steps_by_hand():
    update = train(plain(epochs=2), Ones())
    p = 1 / (1 + math.exp(-0.1))  # after the first step the logits differ by 0.1
    w = 0.05 + 0.1 * (1 - p)
    torch.testing.assert_close(update.state["w"], torch.tensor([w, -w]))
    assert update.metrics["loss"] == (pytest.approx(math.log(2) - math.log(p), rel=1e-6), 2)


def test_the_learning_rate_falls_over_rounds_to_its_last_sixteenth():
    moved = [float(train(plain(), Ones(), round_=round_).state["w"][0]) for round_ in (1, 9)]
    assert moved[0] == pytest.approx(0.05)
    assert moved[1] == pytest.approx(0.05 * math.cos(7 * math.pi / 32))
    assert float(train(plain(schedule="constant"), Ones(), round_=9).state["w"][0]) == pytest.approx(0.05)


@pytest.mark.parametrize(("epoch_over", "steps"), [("all", 5), ("labelled", 2)])
def test_how_many_steps_an_epoch_has(epoch_over: str, steps: int):
    data = Ones(num_labelled=4, num_examples=9)
    assert train(plain(epoch_over=epoch_over), data).metrics["loss"][1] == steps
    # Every two batches are one pass over the four labelled samples.
    assert sorted(data.seen[0] + data.seen[1]) == [0, 1, 2, 3]


def test_a_client_without_labels_sends_back_what_it_got():
    update = train(plain(), Ones(num_labelled=0), (1.0, 2.0))
    assert (update.state["w"].tolist(), update.num_examples, update.metrics) == ([1.0, 2.0], 0, {})


def test_frozen_parameters_stay():
    model = Scores()
    model.w.requires_grad_(False)
    model.extra = torch.nn.Parameter(torch.ones(1))
    groups = plain().optimizer(model, Step("train", 1, 1, "train", Rng(0))).param_groups
    assert [id(p) for p in groups[0]["params"]] == [id(model.extra)]


def test_a_subclass_serves_detection_only_if_it_says_so():
    class Mine(FedAvg):
        pass

    class Detecting(FedAvg):
        tasks = ("detection",)

    assert FedAvg.tasks == ("classification", "sensing", "detection")
    assert Mine.tasks == ("classification", "sensing")
    assert Detecting.tasks == ("detection",)
