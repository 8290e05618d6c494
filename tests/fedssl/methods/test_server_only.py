"""Tests of fedssl.methods.server_only: steps by hand on a model with two weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Payload, ServerState, Step
from fedssl.methods.server_only import ServerOnly
from fedssl.rng import Rng

STEP = Step("train", 1, 3, "train", Rng(0, 1))


class Scores(torch.nn.Module):
    """Two classes, one feature: logits = w x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> Any:
        return SimpleNamespace(logits=x[:, None] * self.w)


class Rebuilds(Scores):
    """Reconstructs every sample as r."""

    def __init__(self) -> None:
        super().__init__()
        self.r = torch.nn.Parameter(torch.zeros(1))

    def reconstruction_error(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.r).square()


class Ones:
    """Samples that are all x = 1, y = 0."""

    dataset = SimpleNamespace(train=SimpleNamespace(holds_boxes=False))

    def __init__(self, count: int) -> None:
        self.labelled = np.arange(count, dtype=np.int64)

    def weak_batches(self, parts: list[NDArray[np.int64]], key: int) -> Iterator[torch.Tensor]:
        return (torch.ones(len(index)) for index in parts)

    def label_batches(self, parts: list[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        return (torch.zeros(len(index), dtype=torch.int64) for index in parts)


def trained(model: torch.nn.Module, **options: Any) -> ServerState:
    method = ServerOnly(**{"epochs": 1, "lr": 0.1, **options})
    data: Any = Ones(2)
    server = method.init_server(model, data, Rng(0), 3)
    return method.train_server(server, model, data, [], STEP)


def test_adams_first_step_is_the_learning_rate():
    # The gradient is (-1/2, 1/2); bias-corrected, Adam's first step is its sign.
    server = trained(Scores())
    torch.testing.assert_close(server.model["w"], torch.tensor([0.1, -0.1]), rtol=1e-5, atol=1e-6)
    assert server.metrics["server_loss"] == pytest.approx(math.log(2))


@pytest.mark.parametrize(("weight", "r", "loss"), [(1.0, 0.1, math.log(2) + 1), (0.5, 0.1, math.log(2) + 0.5)])
def test_the_reconstruction_error_is_trained_too(weight: float, r: float, loss: float):
    server = trained(Rebuilds(), reconstruction=weight)
    assert float(server.model["r"]) == pytest.approx(r, rel=1e-5)
    assert server.metrics["server_loss"] == pytest.approx(loss)


def test_without_weight_a_decoder_stays():
    assert float(trained(Rebuilds(), reconstruction=0.0).model["r"]) == 0.0


def test_the_state_given_stays():
    model, method, data = Scores(), ServerOnly(), Ones(4)
    server = method.init_server(model, data, Rng(0), 3)  # type: ignore[arg-type]
    method.train_server(server, model, data, [], STEP)  # type: ignore[arg-type]
    assert server.model["w"].tolist() == [0.0, 0.0]
    assert server.metrics == {}


def test_clients_answer_nothing_and_change_nothing(client: Callable[..., ClientData]):
    method, model = ServerOnly(), Scores()
    server = ServerState({"w": torch.ones(2)})
    payload = method.downlink(server, 1, STEP)
    assert payload == Payload(server.model)
    assert method.uplink(server, payload, STEP) == {}
    update, memory = method.train_client(model, payload, {"kept": 1}, client(6, 12), STEP)
    assert (update.client_id, update.num_examples, update.state, memory) == (1, 0, {}, {"kept": 1})

    def average(updates: Any) -> Any:
        raise AssertionError("nothing to average")

    assert method.aggregate(server, [update], STEP, average) is server


@pytest.mark.parametrize("held", [None, (0, 12)])
def test_a_server_without_labels_is_refused(client: Callable[..., ClientData], held: tuple[int, int] | None):
    with pytest.raises(ConfigError, match=r"^method='server_only': must be one that needs no labelled samples") as info:
        ServerOnly().check(Scores(), client(*held) if held else None, 3)
    assert info.value.field == "method"
