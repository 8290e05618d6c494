"""Which node is which client, and who takes part in a round."""

from __future__ import annotations

import time

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedssl.rng import Rng
from fedssl.wire import PROTOCOL

NAME = "client-"
POLL_SECONDS = 0.5
ASK_SECONDS = 10.0


class FederationError(RuntimeError):
    """The nodes do not make up the federation that the experiment asks for."""


def discover(grid: Grid, num_clients: int, experiment: ConfigRecord, deadline: float) -> dict[int, int]:
    """Give the node id of every client id, waiting at most `deadline` seconds for all to appear.

    A node named `client-<id>` is known by its name, any other is asked until it answers. Raises FederationError
    naming the numbers if too few appear, and the id if two nodes claim one.
    """
    found: dict[int, int] = {}
    known: set[int] = set()
    patience = ASK_SECONDS
    end = time.monotonic() + deadline
    while True:
        unknown = []
        for info in grid.get_nodes():
            if info.node_id in known:
                continue
            if info.name.startswith(NAME) and info.name[len(NAME) :].isdigit():
                known.add(info.node_id)
                _claim(found, int(info.name[len(NAME) :]), info.node_id, num_clients)
            else:
                unknown.append(info.node_id)
        answers = _ask(grid, unknown, experiment, max(0.1, min(patience, end - time.monotonic())))
        for client_id, node_id in answers:
            known.add(node_id)
            _claim(found, client_id, node_id, num_clients)
        if len(answers) < len(unknown):
            # Longer each time: questions that pile up at slow nodes would never be answered in time.
            patience *= 2
        if len(found) == num_clients:
            return dict(sorted(found.items()))
        if time.monotonic() >= end:
            raise FederationError(f"{len(found)} of {num_clients} clients joined within {deadline:g} s")
        time.sleep(POLL_SECONDS)


def _claim(found: dict[int, int], client_id: int, node_id: int, num_clients: int) -> None:
    if not 0 <= client_id < num_clients:
        raise FederationError(f"node {node_id} claims client {client_id}, not one of 0..{num_clients - 1}")
    if found.setdefault(client_id, node_id) != node_id:
        raise FederationError(f"nodes {found[client_id]} and {node_id} both claim client {client_id}")


def _ask(grid: Grid, node_ids: list[int], experiment: ConfigRecord, timeout: float) -> list[tuple[int, int]]:
    if not node_ids:
        return []
    content = RecordDict({"experiment": experiment})
    messages = [Message(content, dst_node_id=node, message_type="query.join") for node in node_ids]
    answers = []
    for reply in grid.send_and_receive(messages, timeout=timeout):
        node_id = reply.metadata.src_node_id
        if reply.has_error():
            raise FederationError(f"node {node_id} cannot join: {reply.error.reason}")
        client = reply.content.config_records["client"]
        if client.get("protocol") != PROTOCOL or not isinstance(client.get("id"), int):
            raise FederationError(f"node {node_id} speaks protocol {client.get('protocol')!r}, not {PROTOCOL}")
        answers.append((int(client["id"]), node_id))  # type: ignore[arg-type]
    return answers


def sample(num_clients: int, participation: float, rng: Rng) -> list[int]:
    """Give the client ids of a round, sorted: max(1, round(participation * num_clients)) without replacement."""
    count = max(1, round(participation * num_clients))
    if count >= num_clients:
        return list(range(num_clients))
    chosen: np.ndarray[tuple[int], np.dtype[np.int64]] = rng.numpy("cohort").choice(num_clients, count, replace=False)
    return sorted(int(client_id) for client_id in chosen)
