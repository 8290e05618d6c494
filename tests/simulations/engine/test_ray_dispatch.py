"""Tests of how the Ray executor deals clients to workers; no Ray is started."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from simulations.engine.ray import RayExecutor


def take(seconds: dict[int, float], usual: float, clients: int, free: int) -> list[list[int]]:
    """Give the batches that `free` idle workers get, one after the other."""
    executor = object.__new__(RayExecutor)
    executor.seconds, executor.usual = seconds, usual
    tasks: list[Any] = [SimpleNamespace(client_id=client) for client in range(clients)]
    queue = sorted(tasks, key=executor._expected, reverse=True)
    return [[task.client_id for task in executor._take(queue, left, {})] for left in range(free, 0, -1) if queue]


def test_small_clients_go_out_in_even_batches():
    batches = take(dict.fromkeys(range(10), 0.01), 0.01, clients=10, free=2)
    assert [len(batch) for batch in batches] == [5, 5]
    assert sorted(client for batch in batches for client in batch) == list(range(10))


def test_clients_never_seen_count_as_the_usual_one_and_not_as_the_slowest_ever():
    batches = take({99: 3.0}, 0.01, clients=10, free=2)
    assert [len(batch) for batch in batches] == [5, 5]


@pytest.mark.parametrize("usual", [0.2, math.inf])
def test_long_or_unknown_work_goes_out_one_by_one(usual: float):
    assert [len(batch) for batch in take({}, usual, clients=10, free=2)] == [1, 1]


def test_the_longest_client_goes_first():
    assert take({0: 0.1, 1: 0.3, 2: 0.2}, 0.1, clients=3, free=1) == [[1]]
