"""Tests of server.sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from fedssl.rng import Rng
from server.sampling import FederationError, discover, sample
from simulations.engine import internals


@dataclass
class Nodes:
    """A grid of which only the nodes and their answers matter."""

    infos: list[list[NodeInfo]]
    answer: Callable[[int], dict[str, Any]] = lambda node: {"id": node - 100, "protocol": 1}
    asked: list[int] = field(default_factory=list)
    silent: frozenset[int] = frozenset()
    failing: frozenset[int] = frozenset()
    slow: dict[int, int] = field(default_factory=dict)
    """How many times a node does not answer in time."""
    timeouts: list[float] = field(default_factory=list)

    def get_nodes(self) -> list[NodeInfo]:
        return self.infos.pop(0) if len(self.infos) > 1 else self.infos[0]

    def send_and_receive(self, messages: list[Message], *, timeout: float) -> list[Message]:
        assert timeout > 0
        self.timeouts.append(timeout)
        replies = []
        for message in messages:
            internals.give_id(message)
            node = message.metadata.dst_node_id
            assert message.metadata.message_type == "query.join"
            self.asked.append(node)
            if node in self.failing:
                replies.append(Message(Error(code=1, reason="no data here"), reply_to=message))
            elif self.slow.get(node, 0):
                self.slow[node] -= 1
            elif node not in self.silent:
                content = RecordDict({"client": ConfigRecord(self.answer(node))})
                replies.append(Message(content, reply_to=message))
        return replies


def find(nodes: Nodes, num_clients: int, deadline: float = 5.0) -> dict[int, int]:
    return discover(nodes, num_clients, ConfigRecord(), deadline)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.sampling.POLL_SECONDS", 0.001)


def test_named_nodes_are_known_without_asking():
    nodes = Nodes([[internals.node_info(2), internals.node_info(0), internals.node_info(1)]])
    assert list(find(nodes, 3).items()) == [(0, 2), (1, 3), (2, 4)]
    assert nodes.asked == []


def test_other_nodes_are_asked_once_each_as_they_appear():
    first, second = NodeInfo(node_id=101, name="pi-a"), NodeInfo(node_id=100, name="")
    nodes = Nodes([[], [first], [first], [first, second]])
    assert find(nodes, 2) == {0: 100, 1: 101}
    assert nodes.asked == [101, 100]


def test_a_slow_node_is_asked_again_and_one_that_joins_meanwhile_too():
    slow, late = NodeInfo(node_id=100, name=""), NodeInfo(node_id=101, name="")
    nodes = Nodes([[slow], [slow, late]], slow={100: 2})
    assert find(nodes, 2, 3600.0) == {0: 100, 1: 101}
    assert nodes.asked == [100, 100, 101, 100]
    # No one waits for the whole deadline, and each wait is longer than the last.
    assert nodes.timeouts == [10.0, 20.0, 40.0]


@pytest.mark.parametrize("named", [True, False])
def test_two_nodes_that_claim_one_client_are_named(named: bool):
    infos = [NodeInfo(node_id=n, name="client-1" if named else "") for n in (7, 8)]
    with pytest.raises(FederationError, match="nodes 7 and 8 both claim client 1"):
        find(Nodes([infos], lambda _: {"id": 1, "protocol": 1}), 2)


def test_a_client_outside_the_federation_is_named():
    with pytest.raises(FederationError, match=r"node 5 claims client 3, not one of 0\.\.2"):
        find(Nodes([[internals.node_info(3)]]), 3)


def test_too_few_nodes_within_the_deadline_are_an_error_with_both_numbers():
    nodes = Nodes([[internals.node_info(0), NodeInfo(node_id=101, name="")]], silent=frozenset({101}))
    with pytest.raises(FederationError, match=r"1 of 3 clients joined within 0\.05 s"):
        find(nodes, 3, 0.05)


def test_a_node_that_cannot_join_says_why():
    nodes = Nodes([[NodeInfo(node_id=101, name="")]], failing=frozenset({101}))
    with pytest.raises(FederationError, match="node 101 cannot join: no data here"):
        find(nodes, 1)


@pytest.mark.parametrize("answer", [{"id": 0, "protocol": 2}, {"id": 0}, {"protocol": 1}, {"id": "0", "protocol": 1}])
def test_a_node_of_another_protocol_is_refused(answer: dict[str, Any]):
    with pytest.raises(FederationError, match="node 100 speaks protocol"):
        find(Nodes([[NodeInfo(node_id=100, name="")]], lambda _: answer), 1)


def test_a_cohort_is_fixed_by_seed_and_round():
    cohorts = [sample(20, 0.3, Rng(1, round_)) for round_ in range(30)]
    assert cohorts == [sample(20, 0.3, Rng(1, round_)) for round_ in range(30)]
    assert cohorts[0] != sample(20, 0.3, Rng(2, 0))
    assert len({tuple(cohort) for cohort in cohorts}) > 20
    assert all(cohort == sorted(set(cohort)) and len(cohort) == 6 for cohort in cohorts)
    assert {client for cohort in cohorts for client in cohort} == set(range(20))


@pytest.mark.parametrize(("share", "size"), [(1.0, 10), (0.04, 1), (0.16, 2), (0.99, 10)])
def test_the_size_of_a_cohort(share: float, size: int):
    assert len(sample(10, share, Rng(0, 1))) == size
