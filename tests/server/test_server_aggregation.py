"""Tests of server.aggregation: each listed Flower strategy, and each trap that it has."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedssl.aggregation import AGGREGATIONS
from fedssl.config import ConfigError
from fedssl.federation import State, Update
from server.aggregation import Aggregator

PARAMETERS = frozenset({"w", "b"})
CHOICES: list[dict[str, Any]] = [
    {"name": "FedAvg"},
    {"name": "FedAvgM", "server_momentum": 0.0},
    {"name": "FedAvgM", "server_momentum": 0.9},
    {"name": "FedAdam"},
    {"name": "FedYogi"},
    {"name": "FedAdagrad"},
    {"name": "FedMedian"},
    {"name": "FedTrimmedAvg"},
    {"name": "Krum"},
    {"name": "MultiKrum", "num_nodes_to_select": 3},
]
every_rule = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(map(str, choice.values())))


def model(shift: float = 0.0) -> State:
    """Give two parameters, a batch-norm variance and a counter."""
    return {
        "w": torch.tensor([[0.5, -1.25], [2.0, 0.0]]) + shift,
        "b": torch.tensor([1.0]) + shift,
        "running_var": torch.tensor([0.25, 1.0]),
        "num_batches": torch.tensor(7),
    }


def answers(states: list[State], counts: list[int] | None = None) -> list[Update]:
    return [Update(i, (counts or [10] * len(states))[i], state) for i, state in enumerate(states)]


def moved(by: float, start: State) -> State:
    return {**start, "w": start["w"] + by, "b": start["b"] + by}


def test_every_listed_rule_is_tested():
    assert {choice["name"] for choice in CHOICES} == set(AGGREGATIONS.names())


@every_rule
def test_clients_that_return_what_they_were_sent_leave_a_server_trained_model_unchanged(choice: dict[str, Any]):
    aggregator = Aggregator(choice, PARAMETERS)
    server = model()
    for round_ in (1, 2, 3):
        # The server trains between rounds: a rule that keeps its own last arrays would undo it.
        server = moved(0.5, server)
        found = aggregator.average(server, answers([server] * 4, [10, 20, 30, 40]), round_)
        assert set(found) == set(server)
        for name, tensor in server.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


@every_rule
def test_types_and_shapes_are_restored(choice: dict[str, Any]):
    server = {**model(), "scalar": torch.tensor(2.0)}
    aggregator = Aggregator(choice, PARAMETERS | {"scalar"})
    found = aggregator.average(server, answers([moved(0.1 * k, server) for k in range(4)]), 1)
    assert {n: (t.dtype, t.shape) for n, t in found.items()} == {n: (t.dtype, t.shape) for n, t in server.items()}


@every_rule
def test_buffers_are_averaged_apart_and_counters_come_from_the_first_client(choice: dict[str, Any]):
    server = model()
    states = [{**moved(0.1, server), "running_var": torch.tensor([v, 1.0])} for v in (0.0, 0.0, 0.1, 0.3)]
    states[0]["num_batches"] = torch.tensor(11)
    found = Aggregator(choice, PARAMETERS).average(server, answers(states, [1, 1, 1, 1]), 1)
    torch.testing.assert_close(found["running_var"], torch.tensor([0.1, 1.0]))
    assert found["num_batches"].item() == 11


@every_rule
def test_answers_are_read_and_never_changed(choice: dict[str, Any]):
    server = model()
    updates = answers([moved(0.1 * k, server) for k in range(4)])
    before = [{name: tensor.clone() for name, tensor in update.state.items()} for update in updates]
    aggregator = Aggregator(choice, PARAMETERS)
    for round_ in (1, 2):
        aggregator.average(server, updates, round_)
    for update, state in zip(updates, before, strict=True):
        assert list(update.state) == list(state)
        assert all(torch.equal(update.state[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(server[name], tensor) for name, tensor in model().items())


@every_rule
def test_going_on_from_the_saved_state_gives_the_same_bits(choice: dict[str, Any]):
    def rounds(aggregator: Aggregator, server: State, numbers: range) -> State:
        for round_ in numbers:
            states = [moved(0.1 * (k + 1) * round_, server) for k in range(4)]
            server = {**server, **aggregator.average(server, answers(states, [1, 2, 3, 4]), round_)}
        return server

    whole = rounds(Aggregator(choice, PARAMETERS), model(), range(1, 6))
    first = Aggregator(choice, PARAMETERS)
    half = rounds(first, model(), range(1, 3))
    second = Aggregator(choice, PARAMETERS)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    resumed = rounds(second, half, range(3, 6))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_rules_with_state_save_it():
    for name, fields in (("FedAvgM", 2), ("FedAdam", 4), ("FedYogi", 4), ("FedAdagrad", 4), ("FedMedian", 0)):
        aggregator = Aggregator({"name": name}, PARAMETERS)
        aggregator.average(model(), answers([moved(0.1, model())] * 4), 1)
        assert len(aggregator.state()) == fields, name


@every_rule
def test_clients_without_examples_are_left_out(choice: dict[str, Any]):
    server = model()
    states = [moved(0.25, server)] * 4 + [moved(1e6, server)]
    with_one = Aggregator(choice, PARAMETERS).average(server, answers(states, [10, 10, 10, 10, 0]), 1)
    without = Aggregator(choice, PARAMETERS).average(server, answers(states[:4]), 1)
    assert all(torch.equal(with_one[name], without[name]) for name in server)


@every_rule
def test_nobody_left_keeps_the_model(choice: dict[str, Any]):
    assert Aggregator(choice, PARAMETERS).average(model(), answers([moved(1.0, model())] * 3, [0, 0, 0]), 1) == {}
    assert Aggregator(choice, PARAMETERS).average(model(), [], 1) == {}


def test_variances_stay_positive_under_fedadam():
    server = model()
    aggregator = Aggregator({"name": "FedAdam", "eta": 1.0}, PARAMETERS)
    for round_ in range(1, 4):
        states = [{**moved(-0.1, server), "running_var": server["running_var"] * 0.5} for _ in range(3)]
        server = aggregator.average(server, answers(states), round_)
    torch.testing.assert_close(server["running_var"], torch.tensor([0.25, 1.0]) / 8)


def w_of(choice: dict[str, Any], shifts: list[float], counts: list[int] | None = None) -> float:
    """Give by how much a parameter moves when the clients move it by `shifts`."""
    server = model()
    states = [moved(shift, server) for shift in shifts]
    found = Aggregator(choice, PARAMETERS).average(server, answers(states, counts), 1)
    return float(found["b"][0] - server["b"][0])


def test_hand_computed_averages():
    assert w_of({"name": "FedAvg"}, [1.0, 2.0, 6.0], [1, 1, 2]) == pytest.approx((1 + 2 + 12) / 4)
    assert w_of({"name": "FedMedian"}, [1.0, 2.0, 60.0]) == pytest.approx(2.0)
    # A fifth off each end of five leaves three.
    assert w_of({"name": "FedTrimmedAvg"}, [-50.0, 1.0, 2.0, 3.0, 60.0]) == pytest.approx(2.0)
    assert w_of({"name": "FedAvgM", "server_learning_rate": 0.5}, [1.0, 3.0]) == pytest.approx(1.0)
    # One answer far off: Krum takes one of the three that lie together.
    assert w_of({"name": "Krum", "num_malicious_nodes": 1}, [1.0, 1.1, 0.9, 50.0]) < 1.2
    three = {"name": "MultiKrum", "num_malicious_nodes": 1, "num_nodes_to_select": 3}
    assert w_of(three, [1.0, 1.1, 0.9, 50.0]) == pytest.approx(1.0)


def test_hand_computed_adam_step():
    # Round 1: m = 0.1 d, v = 0.01 d^2; rate = eta sqrt(1 - 0.99^2) / (1 - 0.9^2), as Flower counts rounds from 1.
    d = 0.5
    rate = 0.01 * (1 - 0.99**2) ** 0.5 / (1 - 0.9**2)
    assert w_of({"name": "FedAdam"}, [d, d]) == pytest.approx(rate * 0.1 * d / (0.1 * d + 1e-3), rel=1e-4)


def test_momentum_goes_on_after_the_clients_stop():
    server, aggregator = model(), Aggregator({"name": "FedAvgM"}, PARAMETERS)
    first = aggregator.average(server, answers([moved(1.0, server)] * 2), 1)
    assert float(first["b"][0] - server["b"][0]) == pytest.approx(1.0)
    second = aggregator.average(first, answers([first] * 2), 2)
    assert float(second["b"][0] - first["b"][0]) == pytest.approx(0.9)


def test_momentum_does_not_mind_the_order_of_names():
    server, aggregator = model(), Aggregator({"name": "FedAvgM"}, PARAMETERS)
    first = aggregator.average(server, answers([moved(1.0, server)] * 2), 1)
    turned = dict(reversed(first.items()))
    second = aggregator.average(turned, answers([turned] * 2), 2)
    torch.testing.assert_close(second["w"], first["w"] + 0.9)


def test_krum_does_not_see_counters():
    # By the counter, client 3 is alone; by the parameters, client 0 is.
    server = model()
    states = [moved(shift, server) for shift in (50.0, 1.0, 1.0, 1.0)]
    states[3] = {**states[3], "num_batches": torch.tensor(10**9), "running_var": torch.tensor([1e9, 1e9])}
    found = Aggregator({"name": "Krum", "num_malicious_nodes": 1}, PARAMETERS).average(server, answers(states), 1)
    torch.testing.assert_close(found["b"], server["b"] + 1)


@pytest.mark.parametrize(
    "name",
    ["FedXgbBagging", "FedXgbCyclic", "DifferentialPrivacyServerSideFixedClipping", "Bulyan", "fedavg", "__doc__"],
)
def test_other_strategies_are_refused(name: str):
    with pytest.raises(ConfigError, match=f"aggregation='{name}': must be one of FedAdagrad, FedAdam"):
        Aggregator({"name": name}, PARAMETERS)


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdam"])
def test_a_rule_with_a_memory_begins_anew_when_more_tensors_come(name: str):
    aggregator, server = Aggregator({"name": name}, PARAMETERS), model()
    part = {"w": server["w"] + 1}
    aggregator.average(server, answers([part, part]), 1)
    found = aggregator.average(server, answers([moved(1.0, server)] * 2), 2)
    fresh = Aggregator({"name": name}, PARAMETERS).average(server, answers([moved(1.0, server)] * 2), 2)
    assert found.keys() == server.keys()
    assert all(torch.equal(found[key], fresh[key]) for key in found)
