"""Tests of a server with labelled samples of its own, of clients that join late, and of what rounds tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import toys

from fedssl.config import ConfigError, Experiment
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Payload, ServerState, Step, Update
from fedssl.methods.base import METHODS
from server.round import Round
from simulations import simulate


@METHODS.register("teacher")
@dataclass
class Teacher(toys.Toy):
    """Notes what the server is given, counts sweeps in its state, and keeps client 3 for after training."""

    tasks: ClassVar[tuple[str, ...]] = ("sensing",)
    given: ClassVar[list[ClientData | None]] = []
    sent: ClassVar[list[tuple[str, int, float]]] = []

    def evaluation_visits(self) -> int:
        """Ask for two."""
        return 2

    def num_training_clients(self, num_clients: int) -> int:
        """Keep the last."""
        return num_clients - 1

    def init_server(self, model: torch.nn.Module, data: ClientData | None, *given: Any) -> ServerState:
        """Note the data."""
        self.given.append(data)
        return replace(super().init_server(model, data, *given), extra={"sweeps": torch.zeros(())})

    def downlink(self, server: ServerState, client_id: int, step: Step) -> Payload:
        """Note phase, client and sweeps so far."""
        self.sent.append((step.phase, client_id, float(server.extra["sweeps"])))
        return super().downlink(server, client_id, step)

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Count sweeps and tell the number of updates."""
        self.given.append(data)
        count = server.extra["sweeps"] + (step.phase == "evaluate")
        return replace(server, extra={"sweeps": count}, metrics={**server.metrics, "updates": float(len(updates))})


def chosen(**fields: Any) -> Experiment:
    data = {"name": "imu_synthetic", "users": 4, "server_subjects": 2, "windows": 10}
    own = {"name": "finetune", "epochs": 0}
    given = {"method": {"name": "teacher"}, "data": data, "partition": {"name": "natural"}, "personalization": own}
    return toys.experiment(**{**given, "rounds": 2, **fields})


def observed(experiment: Experiment) -> tuple[Any, list[Round]]:
    Teacher.given.clear()
    Teacher.sent.clear()
    run, rounds = toys.begun(experiment), []
    with toys.grid(experiment.clients) as grid:
        run.strategy.on_round = rounds.append
        run.strategy.start(grid)
    return run, rounds


def test_the_server_is_given_its_own_labelled_samples_each_time():
    run, _ = observed(chosen())
    assert len(Teacher.given) == 1 + 2 + 2
    for data in Teacher.given:
        assert data is not None
        assert (data.client_id, len(data.unlabelled)) == (-1, 0)
        assert set(data.dataset.train.group[data.labelled]) == set(run.dataset.server_groups) == {0, 1}
        np.testing.assert_array_equal(data.labels(data.labelled), data.dataset.train.y[data.labelled])


def test_without_such_samples_it_is_given_none():
    observed(chosen(data={"name": "imu_synthetic", "users": 4, "server_subjects": 0, "windows": 10}))
    assert Teacher.given == [None] * 5


def test_a_client_that_joins_late_is_swept_and_scored_but_never_trains():
    _, rounds = observed(chosen())
    assert [round_.cohort for round_ in rounds] == [[0, 1, 2], [0, 1, 2]]
    assert {client for phase, client, _ in Teacher.sent if phase == "train"} == {0, 1, 2}
    assert {client for phase, client, _ in Teacher.sent if phase == "evaluate"} == {0, 1, 2, 3}
    assert "personal_macro_f1" in rounds[-1].evaluation.clients[3]


def test_models_are_scored_as_the_sweeps_left_the_server_which_is_then_put_back():
    run, _ = observed(chosen())
    assert [count for phase, _, count in Teacher.sent if phase == "evaluate"] == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert run.strategy.server.extra["sweeps"] == 0


def test_what_the_server_tells_of_a_round_and_of_its_sweep_is_recorded():
    _, rounds = observed(chosen())
    assert [round_.train.get("updates") for round_ in rounds] == [3.0, 3.0]
    assert "sweep_updates" not in rounds[0].train
    assert rounds[1].train["sweep_updates"] == 4.0
    assert all(0 < round_.server_seconds < round_.seconds for round_ in rounds)


REFUSED = {
    "server_only": "method='server_only': must be one that needs no labelled samples at the server",
    "semipfl": "data='no windows at the server': must be one whose server has labelled windows of its own",
    "autoencoder": "method='autoencoder with head=server': must be one that needs no labelled samples at the server",
}


@pytest.mark.parametrize("method", REFUSED)
def test_a_method_whose_server_needs_samples_is_refused_before_anything_is_written(method: str, tmp_path: Path):
    place = tmp_path / "run"
    with pytest.raises(ConfigError, match=REFUSED[method]):
        simulate([f"method={method}", "data.server_subjects=0", "data=imu_synthetic", "engine=inline", f"out={place}"])
    assert not place.exists()
