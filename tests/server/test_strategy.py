"""Tests of server.strategy: a client that fails or lies is named, and the round goes on without it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import toys
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from clients.app import to_arrays
from fedssl.config import Experiment
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, ServerState, State, Step, Update
from fedssl.methods.base import METHODS
from fedssl.wire import encode
from server.app import ServerRun
from server.round import Round
from server.strategy import RoundFailed

REFUSALS = {
    "raise": "RuntimeError: the disk at this client is on fire",
    "raise_late": "memory 'unsendable' is a object",
    "nan": "backbone.1.weight holds NaN or infinity",
    "shape": r"backbone.1.weight is float32\[7, 64\], not float32\[8, 64\]",
    "extra": r"unexpected arrays \['unheard.of'\]",
    "missing": r"lacks \['backbone.1.weight'\]",
    "dtype": r"backbone.1.weight is float64\[8, 64\], not float32",
    "metric": "metric loss is ",
}


def watched(chosen: Experiment, spoil: Any = None) -> tuple[ServerRun, list[Round]]:
    """Run an experiment inline and note its rounds; `spoil` may change what the clients reply."""
    rounds: list[Round] = []
    run: ServerRun = toys.begun(chosen)
    with toys.grid(chosen.clients) as grid:
        if spoil is not None:
            send = grid.send_and_receive
            grid.send_and_receive = lambda messages, timeout=None: spoil(list(send(messages, timeout=timeout)))
        run.strategy.on_round = rounds.append
        run.strategy.start(grid)
    return run, rounds


def mean_of(start: State, clients: Iterable[int], weights: list[int]) -> State:
    """Give the mean of what `toy` clients answer, by hand."""
    shift = sum((c + 1) * w for c, w in zip(clients, weights, strict=True)) / sum(weights)
    return {name: tensor + shift for name, tensor in start.items()}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_round_goes_on_without_a_client_that_fails_or_lies(fault: str):
    method = {"name": "toy", "fault": fault, "culprit": 1}
    before = toys.begun(toys.experiment(rounds=1)).strategy.server.model
    run, rounds = watched(toys.experiment(method=method, rounds=1))
    assert list(rounds[0].failed) == [1]
    with pytest.raises(AssertionError, match=REFUSALS[fault]):
        raise AssertionError(rounds[0].failed[1])
    sizes = [len(run.split.client(k).labelled) + len(run.split.client(k).unlabelled) for k in (0, 2, 3)]
    for name, tensor in mean_of(before, (0, 2, 3), sizes).items():
        torch.testing.assert_close(run.strategy.server.model[name], tensor)


def test_the_same_bits_with_or_without_a_liar_who_is_refused():
    honest, _ = watched(toys.experiment(method={"name": "toy", "fault": "raise", "culprit": 1}))
    lying, _ = watched(toys.experiment(method={"name": "toy", "fault": "nan", "culprit": 1}))
    assert all(torch.equal(honest.strategy.server.model[n], t) for n, t in lying.strategy.server.model.items())


def test_too_few_good_answers_stop_the_run_with_the_clients_tracebacks():
    chosen = toys.experiment(method={"name": "toy", "fault": "raise", "culprit": -1, "fault_round": 2})
    with pytest.raises(RoundFailed) as caught:
        watched(chosen)
    text = str(caught.value)
    assert text.startswith("round 2: 0 of 4 clients answered well, 2 are needed (min_answers=0.5)")
    assert text.count("RuntimeError: the disk at this client is on fire") == 4
    assert "client 3: Traceback" in text


def test_bad_statistics_for_calibration_are_refused_by_name_and_the_round_goes_on():
    def spoil(replies: list[Message]) -> list[Message]:
        count = {"temperature.count": torch.ones(2)}
        return [
            toys.reply_with(RecordDict({**reply.content, "statistics": to_arrays(count)}), client)
            if client == 2
            else reply
            for client, reply in enumerate(replies)
        ]

    calibration = {"name": "temperature"}
    run, rounds = watched(toys.experiment(rounds=1, calibration=calibration), spoil)
    assert rounds[0].failed == {
        2: "statistics are refused: statistics have temperature.count alone, not both temperature.nll and "
        "temperature.count"
    }
    absent = {"name": "toy", "fault": "raise", "culprit": 2}
    without, _ = watched(toys.experiment(method=absent, rounds=1, calibration=calibration))
    assert torch.equal(run.strategy.server.extra["temperature"], without.strategy.server.extra["temperature"])


def test_arrays_of_the_exchange_before_are_let_go():
    run, _ = watched(toys.experiment(method={"name": "fedavg"}))
    held = [state for state, _ in run.strategy._encoded.values()]
    # The last exchange sent the model before the last average, and nobody was scored since.
    assert len(held) == 1


@pytest.mark.parametrize(("share", "passes"), [(0.75, True), (1.0, False), (0.0, True)])
def test_min_answers_decides_how_many_are_enough(share: float, passes: bool):
    chosen = toys.experiment(method={"name": "toy", "fault": "nan"}, rounds=1, min_answers=share)
    if passes:
        assert list(watched(chosen)[1][0].failed) == [1]
    else:
        with pytest.raises(RoundFailed, match="3 of 4 clients answered well, 4 are needed"):
            watched(chosen)


def test_without_any_answer_the_server_goes_on_alone_where_none_is_needed(monkeypatch: pytest.MonkeyPatch):
    def train_server(_: Any, server: ServerState, *given: Any) -> ServerState:
        return replace(server, metrics={"answers": float(len(given[2]))})

    monkeypatch.setattr(toys.Toy, "train_server", train_server)
    method = {"name": "toy", "fault": "raise", "culprit": -1, "fault_round": 2}
    before = watched(toys.experiment(method=method, rounds=1))[0].strategy.server
    run, rounds = watched(toys.experiment(method=method, rounds=2, min_answers=0.0))
    assert [sorted(round_.failed) for round_ in rounds] == [[], [0, 1, 2, 3]]
    assert all(torch.equal(run.strategy.server.model[name], tensor) for name, tensor in before.model.items())
    assert [round_.train["answers"] for round_ in rounds] == [4.0, 0.0]


def test_a_failed_client_takes_part_again():
    _, rounds = watched(toys.experiment(method={"name": "toy", "fault": "raise", "culprit": 2, "fault_round": 3}))
    assert [list(round_.failed) for round_ in rounds] == [[], [], [2]]


def stranger(message: Message, node_id: int) -> Message:
    message.metadata.__dict__["_src_node_id"] = node_id
    return message


def test_replies_of_unknown_nodes_and_second_replies_count_for_nothing():
    def spoil(replies: list[Message]) -> list[Message]:
        if replies[0].metadata.message_type != "train.train":
            return replies
        first = replies[0]
        content = dict(first.content)
        values = {"client_id": 0, "num_examples": 10**6}
        twice = toys.reply_with(RecordDict({**content, "values": ConfigRecord(values)}), 0)
        unknown = stranger(toys.reply_with(first.content, 0), 999)
        return [unknown, *reversed(replies), twice, unknown]

    clean, _ = watched(toys.experiment(rounds=2))
    noisy, rounds = watched(toys.experiment(rounds=2), spoil)
    assert [round_.failed for round_ in rounds] == [{}, {}]
    assert all(torch.equal(clean.strategy.server.model[n], t) for n, t in noisy.strategy.server.model.items())


def test_a_good_answer_after_a_refused_one_is_too_late():
    def spoil(replies: list[Message]) -> list[Message]:
        bad = toys.reply_with(RecordDict(), 0)
        return [bad, *replies]

    _, rounds = watched(toys.experiment(rounds=1), spoil)
    assert rounds[0].failed == {0: "answer has no 'state' arrays"}


def test_a_client_that_does_not_answer_is_named():
    _, rounds = watched(toys.experiment(rounds=1), lambda replies: replies[:3])
    assert rounds[0].failed == {3: "no answer within the deadline"}


def test_train_metrics_are_means_by_count_and_bytes_are_those_of_the_tensors():
    run, rounds = watched(toys.experiment())
    size = sum(tensor.nbytes for tensor in run.strategy.server.model.values())
    for round_ in rounds:
        assert round_.train == {"loss": float(round_.number)}
        assert (round_.traffic.up, round_.traffic.down) == (4 * size, 4 * size)


def score_replies(run: ServerRun, scores: dict[int, MetricRecord]) -> list[Message]:
    run.strategy.nodes = {client: client + 2 for client in range(4)}
    run.strategy.clients = {node: client for client, node in run.strategy.nodes.items()}
    return [toys.reply_with(RecordDict({"test": record}), client, "evaluate") for client, record in scores.items()]


def test_personal_scores_are_plain_means_and_nan_is_no_score():
    run: ServerRun = toys.begun(toys.experiment())
    run.strategy.current = Round(1, [0, 1, 2, 3])
    scores = {
        2: MetricRecord({"accuracy": 0.5, "ece": 0.25, "num_examples": 100}),
        0: MetricRecord({"accuracy": 1.0, "ece": float("nan"), "num_examples": 1}),
        1: MetricRecord({"accuracy": float("inf"), "num_examples": 3}),
    }
    replies = score_replies(run, scores)
    late = toys.reply_with(RecordDict({"test": MetricRecord({"accuracy": 0.0})}), 2, "evaluate")
    strange = stranger(toys.reply_with(RecordDict({"test": MetricRecord({"accuracy": 0.0})}), 3, "evaluate"), 77)
    run.strategy.aggregate_evaluate(1, [*replies, late, strange])
    found = run.strategy.current.evaluation
    assert found.test == {"personal_accuracy": 0.75, "personal_ece": 0.25}
    assert found.clients == {
        0: {"personal_accuracy": 1.0},
        2: {"personal_accuracy": 0.5, "personal_ece": 0.25},
    }
    assert run.strategy.current.failed == {}


def test_a_client_that_gives_no_scores_is_named():
    chosen = toys.experiment(rounds=1, personalization={"name": "finetune", "epochs": 1})

    def spoil(replies: list[Message]) -> list[Message]:
        return replies[1:] if replies[0].metadata.message_type == "evaluate" else replies

    _, rounds = watched(chosen, spoil)
    assert rounds[0].failed == {0: "no scores within the deadline"}
    assert sorted(k for k, v in rounds[0].evaluation.clients.items() if "personal_accuracy" in v) == [1, 2, 3]


def test_what_clients_keep_is_sent_once_and_again_to_one_that_failed():
    chosen = toys.experiment(
        method={"name": "toy", "fault": "raise", "culprit": 1, "fault_round": 3},
        personalization={"name": "local_head"},
        evaluation={"every": 100},
        rounds=4,
    )
    run, rounds = watched(chosen)
    whole = sum(tensor.nbytes for tensor in run.strategy.server.model.values())
    shared = whole - sum(t.nbytes for n, t in run.strategy.server.model.items() if n.startswith("head."))
    down = [round_.traffic.down for round_ in rounds]
    assert down[:3] == [4 * whole, 4 * shared, 4 * shared]
    # The last round trains and scores all: client 1 failed in round 3, so it is sent everything.
    assert down[3] == 2 * (3 * shared + whole)
    assert rounds[0].traffic.up == 4 * shared


@METHODS.register("headstrong")
@dataclass
class Headstrong(toys.Toy):
    """Trains and answers with the head alone; the rest has to come with the payload all the same."""

    def uplink(self, server: ServerState, payload: Payload, step: Step) -> State:
        """Wait for the head."""
        del server, step
        return {name: tensor for name, tensor in payload.state.items() if name.startswith("head.")}

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Need the whole model."""
        model.load_state_dict(payload.state)
        update, memory = super().train_client(model, payload, memory, data, step)
        return replace(update, state={k: t for k, t in update.state.items() if k.startswith("head.")}), memory


def test_clients_that_share_nothing_keep_what_they_do_not_train_too():
    chosen = toys.experiment(method={"name": "headstrong"}, personalization={"name": "local_only"}, rounds=3)
    run, rounds = watched(chosen)
    assert [round_.failed for round_ in rounds] == [{}, {}, {}]
    whole = sum(tensor.nbytes for tensor in run.strategy.server.model.values())
    assert [round_.traffic.down for round_ in rounds] == [4 * whole, 0, 0]
    assert "personal_accuracy" in rounds[-1].evaluation.test


def test_an_encoded_update_of_another_client_is_refused():
    run: ServerRun = toys.begun(toys.experiment())

    def spoil(replies: list[Message]) -> list[Message]:
        update = Update(2, 5, run.strategy.server.model)
        return [toys.reply_with(RecordDict(encode(update, to_arrays, ConfigRecord)), 0), *replies[1:]]

    _, rounds = watched(toys.experiment(rounds=1), spoil)
    assert rounds[0].failed == {0: "answer names client 2"}
