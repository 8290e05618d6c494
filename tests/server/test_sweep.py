"""Tests of the sweep before personalised models are scored: it reaches every memory and nothing at the server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import toys

from fedssl.config import Experiment, option
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, ServerState, State, Step, Update
from fedssl.methods.base import METHODS
from fedssl.personalization.base import Personal, PersonalizationHook
from server.app import ServerRun
from server.round import Round
from server.watcher import Silence

NOBODY = -2
SEEN: list[tuple[int, str, str, list[int]]] = []
"""Round, exchange, phase and client ids of each call of `train_server`."""


@METHODS.register("sweeper")
@dataclass
class Sweeper(toys.Toy):
    """Two exchanges; a client has a model of its own once a sweep got it through both, but client 3 never."""

    sweep_culprit: int = option(NOBODY, "the client that fails in sweeps; -1 = all", low=NOBODY)

    exchanges: ClassVar[tuple[str, ...]] = ("train", "mixture")
    interrupts: ClassVar[bool] = False

    def evaluation_visits(self) -> int:
        """Ask for one."""
        return 1

    def init_server(self, *given: Any) -> ServerState:
        """Keep a number that `train_server` changes in place."""
        return replace(super().init_server(*given), extra={"count": torch.zeros(())})

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Note the phase in memory."""
        if step.phase == "evaluate" and self.interrupts and data.client_id == 2:
            raise KeyboardInterrupt
        if step.phase == "evaluate" and self.sweep_culprit in (-1, data.client_id):
            raise RuntimeError("no sweeping here")
        update, memory = super().train_client(model, payload, memory, data, step)
        if step.phase == "evaluate":
            update = replace(update, metrics={"loss": (99.0, 1.0)})
        key = f"{step.phase}.{step.exchange}"
        return update, {**memory, key: int(memory.get(key, 0)) + 1}

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Change tensors in place, which reaches any that are not copies."""
        SEEN.append((step.round_, step.exchange, step.phase, [update.client_id for update in updates]))
        server.extra["count"] += 1
        server.model["head.bias"] += 1
        return server

    def personalize(
        self,
        model: torch.nn.Module,
        payload: Payload,
        memory: Memory,
        data: ClientData,
        step: Step,
        hook: PersonalizationHook,
    ) -> Personal | None:
        """Give a model if a sweep came by."""
        model.load_state_dict(payload.state)
        return Personal(model, {"mark": 7.0}) if "evaluate.mixture" in memory and data.client_id != 3 else None


@METHODS.register("unswept")
@dataclass
class Unswept(Sweeper):
    """The same without sweeps."""

    def evaluation_visits(self) -> int:
        """Ask for none."""
        return 0


def chosen(name: str = "sweeper", **fields: Any) -> Experiment:
    given = {"participation": 0.25, "rounds": 2, "personalization": {"name": "finetune", "epochs": 0}, **fields}
    return toys.experiment(**{"method": {"name": name}, **given})


def observed(experiment: Experiment) -> tuple[ServerRun, list[Round], dict[int, Memory], list[State]]:
    """Run inline; give the rounds, the memories, and the strategy's state after each round."""
    SEEN.clear()
    run, rounds, states = toys.begun(experiment), [], []

    def note(round_: Round) -> None:
        rounds.append(round_)
        server = run.strategy.server
        state = {**server.model, **server.extra, **run.strategy.aggregator.state()}
        states.append({name: tensor.clone() for name, tensor in state.items()})

    with toys.grid(experiment.clients) as grid:
        run.strategy.on_round = note
        run.strategy.start(grid)
        return run, rounds, grid.memories(), states


def test_a_sweep_takes_all_clients_through_all_exchanges_before_the_last_score():
    _, rounds, memories, _ = observed(chosen())
    cohorts = [round_.cohort for round_ in rounds]
    assert [len(cohort) for cohort in cohorts] == [1, 1]
    trained = [(r, e, "train", cohorts[r - 1]) for r in (1, 2) for e in ("train", "mixture")]
    assert [*trained, (2, "train", "evaluate", [0, 1, 2, 3]), (2, "mixture", "evaluate", [0, 1, 2, 3])] == SEEN
    for client_id in range(4):
        assert memories[client_id]["evaluate.train"] == memories[client_id]["evaluate.mixture"] == 1
        visits = sum(client_id in cohort for cohort in cohorts)
        assert memories[client_id].get("train.train", 0) == visits


@pytest.mark.parametrize("aggregation", ["FedAvg", "FedAdam", "FedAvgM"])
def test_sweeps_after_every_round_change_nothing_at_the_server(aggregation: str):
    fields: dict[str, Any] = {"aggregation": {"name": aggregation}, "evaluation": {"personal_every": 1}, "rounds": 3}
    _, _, _, swept = observed(chosen(**fields))
    assert len([seen for seen in SEEN if seen[2] == "evaluate"]) == 6
    _, _, _, still = observed(chosen("unswept", **fields))
    assert [float(state["count"]) for state in swept] == [2, 4, 6]
    for one, other in zip(swept, still, strict=True):
        assert list(one) == list(other)
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_sweeps_leave_the_rounds_own_train_metrics_and_count_as_traffic():
    run, rounds, _, _ = observed(chosen())
    size = sum(tensor.nbytes for tensor in run.strategy.server.model.values())
    assert rounds[-1].train == {"loss": 2.0}
    assert [round_.traffic.up for round_ in rounds] == [2 * size, (2 + 2 * 4) * size]
    assert [round_.traffic.down for round_ in rounds] == [2 * size, (2 + 2 * 4 + 4) * size]
    assert run.strategy.with_memory == {0, 1, 2, 3}


def scored(round_: Round) -> list[int]:
    return sorted(k for k, values in round_.evaluation.clients.items() if "personal_accuracy" in values)


def test_a_client_may_answer_that_it_has_no_score():
    _, rounds, _, _ = observed(chosen())
    assert scored(rounds[-1]) == [0, 1, 2]
    assert rounds[-1].failed == {}
    found = rounds[-1].evaluation
    mean = sum(found.clients[client_id]["personal_accuracy"] for client_id in range(3)) / 3
    assert found.test["personal_accuracy"] == mean
    assert found.clients[0]["personal_mark"] == found.test["personal_mark"] == 7


def test_a_client_that_a_sweep_failed_to_reach_is_not_scored_with_what_an_earlier_one_left(
    monkeypatch: pytest.MonkeyPatch,
):
    trained = Sweeper.train_client

    def fails_later(self: Sweeper, model: Any, payload: Payload, memory: Memory, data: ClientData, step: Step) -> Any:
        if step.phase == "evaluate" and step.round_ == 2 and step.exchange == "mixture" and data.client_id == 1:
            raise RuntimeError("lost on the way")
        return trained(self, model, payload, memory, data, step)

    monkeypatch.setattr(Sweeper, "train_client", fails_later)
    _, rounds, _, _ = observed(chosen(evaluation={"personal_every": 1}, rounds=3))
    assert [scored(round_) for round_ in rounds] == [[0, 1, 2], [0, 2], [0, 1, 2]]
    assert [list(round_.failed) for round_ in rounds] == [[], [1], []]


@pytest.mark.parametrize(("culprit", "failed", "left"), [(1, [1], [0, 2]), (-1, [0, 1, 2, 3], [])])
def test_clients_that_fail_in_a_sweep_are_named_and_the_run_goes_on(culprit: int, failed: list[int], left: list[int]):
    method = {"name": "sweeper", "sweep_culprit": culprit}
    _, rounds, _, _ = observed(chosen(method=method, participation=1.0, min_answers=1.0))
    assert rounds[0].failed == {}
    assert sorted(rounds[1].failed) == failed
    assert all("RuntimeError: no sweeping here" in reason for reason in rounds[1].failed.values())
    assert scored(rounds[1]) == left
    assert rounds[1].train == {"loss": 2.0}


def test_what_a_swept_client_keeps_is_not_sent_to_it_again():
    fields = {"personalization": {"name": "local_head"}, "evaluation": {"every": 100}, "rounds": 1}
    run, rounds, _, _ = observed(chosen(**fields))
    whole = sum(tensor.nbytes for tensor in run.strategy.server.model.values())
    shared = whole - sum(t.nbytes for n, t in run.strategy.server.model.items() if n.startswith("head."))
    assert run.strategy.holders == {0, 1, 2, 3}
    # Trained: whole, shared. Swept: three whole and one shared, then all shared. Scored: all shared.
    assert rounds[0].traffic.down == (whole + shared) + (3 * whole + shared) + 4 * shared + 4 * shared


def told(directory: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((directory / "summary.json").read_text())
    for values in (*records, summary):
        for clock in ("seconds", "server_seconds", "elapsed", "wall_seconds", "seconds_per_round"):
            values.pop(clock, None)
    return records, summary


class Stopper(Silence):
    """Stops after round 2."""

    def round(self, record: dict[str, Any]) -> None:
        """Do as Ctrl-C would."""
        if record["round"] == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("in_sweep", [False, True])
def test_a_run_stopped_before_or_in_its_sweep_goes_on_to_the_same_bits(
    in_sweep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fields = {"personalization": {"name": "local_head"}, "aggregation": {"name": "FedAdam"}}
    experiment = chosen(rounds=4, evaluation={"every": 4}, **fields)
    SEEN.clear()
    toys.run(experiment, tmp_path / "whole")
    assert [round_ for round_, _, phase, _ in SEEN if phase == "evaluate"] == [4, 4]
    monkeypatch.setattr(Sweeper, "interrupts", in_sweep)
    with pytest.raises(KeyboardInterrupt):
        toys.run(experiment, tmp_path / "cut", watcher=Silence() if in_sweep else Stopper())
    monkeypatch.setattr(Sweeper, "interrupts", False)
    assert len(told(tmp_path / "cut")[0]) == (3 if in_sweep else 2)
    toys.run(experiment, tmp_path / "cut", resume=True)
    assert told(tmp_path / "whole") == told(tmp_path / "cut")
