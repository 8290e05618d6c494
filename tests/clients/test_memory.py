"""Tests of clients.memory."""

from __future__ import annotations

import pytest
import torch
from flwr.app import RecordDict

from clients import memory


def test_a_new_client_has_no_memory():
    assert memory.read(RecordDict()) == {}


def test_memory_comes_back_as_it_was_written():
    state = RecordDict()
    memory.write(state, {"teacher": torch.tensor([1.0, 2.0]), "rounds": 3, "rate": 0.5, "phase": "warm"})
    found = memory.read(state)
    assert torch.equal(found.pop("teacher"), torch.tensor([1.0, 2.0]))
    assert found == {"rounds": 3, "rate": 0.5, "phase": "warm"}


def test_writing_replaces_everything_and_keeps_other_records():
    state = RecordDict()
    memory.write(state, {"a": torch.ones(1), "b": 1})
    memory.write(state, {"c": 2})
    assert memory.read(state) == {"c": 2}
    memory.write(state, {})
    assert len(state) == 0


def test_what_is_written_is_a_copy():
    state, tensor = RecordDict(), torch.zeros(2)
    memory.write(state, {"a": tensor})
    tensor += 1
    memory.read(state)["a"].add_(5)
    assert memory.read(state)["a"].tolist() == [0.0, 0.0]


def test_a_value_that_cannot_be_kept_is_named_and_nothing_changes():
    state = RecordDict()
    memory.write(state, {"a": 1})
    with pytest.raises(TypeError, match="memory 'model' is a list, not a tensor, float, int or str"):
        memory.write(state, {"model": [1]})
    assert memory.read(state) == {"a": 1}


def test_the_digest_depends_on_names_types_shapes_and_values_and_not_on_order():
    base = {"a": torch.tensor([1.0, 2.0]), "n": 1}
    same = {"n": 1, "a": torch.tensor([1.0, 2.0])}
    others = [
        {"a": torch.tensor([1.0, 2.5]), "n": 1},
        {"a": torch.tensor([[1.0, 2.0]]), "n": 1},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64), "n": 1},
        {"b": torch.tensor([1.0, 2.0]), "n": 1},
        {"a": torch.tensor([1.0, 2.0]), "n": 1.0},
        {"a": torch.tensor([1.0, 2.0])},
        {},
    ]
    assert memory.digest(base) == memory.digest(same)
    assert len({memory.digest(found) for found in [base, *others]}) == 1 + len(others)
