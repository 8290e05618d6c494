"""Tests of what the server hands to hooks, by a calibration hook and a method that keep what they see."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toys

from fedssl.calibration.base import CALIBRATIONS, CalibrationHook
from fedssl.data.views.client_data import ClientData
from fedssl.federation import ServerState, State, Step, Update
from fedssl.methods.base import METHODS
from fedssl.rng import Rng
from server.app import ServerRun
from server.watcher import Silence


@CALIBRATIONS.register("probe")
@dataclass
class Probe(CalibrationHook):
    """Keeps a draw, the model's head and the clients' ids."""

    def calibrate(self, model: State, extra: State, updates: Sequence[Update], rng: Rng) -> State:
        """Give what was handed in, and count the calls."""
        return {
            "draw": torch.rand(3, generator=rng.torch("probe")),
            "head": model["head.bias"].clone(),
            "ids": torch.tensor([update.client_id for update in updates]),
            "calls": extra.get("calls", torch.zeros(())) + 1,
        }


@METHODS.register("warm")
@dataclass
class Warm(toys.Toy):
    """Sizes its state by the number of clients, and sums the clients' weights in `train_server`."""

    begun: ClassVar[list[int]] = []

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Count the calls."""
        self.begun.append(num_clients)
        server = super().init_server(model, data, rng, num_clients)
        return replace(server, extra={"weights": torch.zeros(num_clients, dtype=torch.int64)})

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Add the clients' weights at their places."""
        weights = server.extra["weights"].clone()
        for update in updates:
            weights[update.client_id] += update.num_examples
        return replace(server, extra={**server.extra, "weights": weights})


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Warm, "begun", [])


def test_a_calibration_hook_sees_the_aggregated_model_and_draws_by_seed_and_round():
    run = toys.run(toys.experiment(rounds=2, seed=5, participation=0.5, calibration={"name": "probe"}))
    extra = run.strategy.server.extra
    assert torch.equal(extra["draw"], torch.rand(3, generator=Rng(5, round_=2).torch("probe")))
    assert torch.equal(extra["head"], run.strategy.server.model["head.bias"])
    assert extra["ids"].tolist() == run.strategy.current.cohort
    assert float(extra["calls"]) == 2


def test_the_server_trains_with_the_updates_of_the_exchange():
    run = toys.run(toys.experiment(method={"name": "warm"}, rounds=2))
    sizes = [len(run.split.client(k).labelled) + len(run.split.client(k).unlabelled) for k in range(4)]
    assert run.strategy.server.extra["weights"].tolist() == [2 * size for size in sizes]
    assert Warm.begun == [4]


def test_a_resumed_run_makes_no_first_state(tmp_path: Path):
    chosen = toys.experiment(method={"name": "warm"}, rounds=2)
    toys.run(chosen, tmp_path / "run")
    assert Warm.begun == [4]
    run = toys.run(replace(chosen, rounds=3), tmp_path / "run", resume=True)
    assert Warm.begun == [4]
    whole = toys.run(replace(chosen, rounds=3))
    assert torch.equal(run.strategy.server.extra["weights"], whole.strategy.server.extra["weights"])


def test_a_run_that_has_not_begun_has_no_state():
    run = ServerRun(toys.experiment(method={"name": "warm"}), Silence())
    assert (Warm.begun, run.strategy.server.model) == ([], {})
    run.begin()
    assert list(run.strategy.server.model) == list(run.model.state_dict())


def test_a_client_that_changes_folder_does_not_move_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    train = toys.Toy.train_client

    def elsewhere(self: toys.Toy, *given: Any) -> Any:
        os.chdir("/")
        return train(self, *given)

    monkeypatch.setattr(toys.Toy, "train_client", elsewhere)
    toys.run(toys.experiment(rounds=2), Path("run"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rounds"] == 2
