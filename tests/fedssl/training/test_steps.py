from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.models.base import MODELS
from fedssl.training.steps import load, parts_of, snapshot, tensors

SHAPES = {"cnn1d": (40, 6), "autoencoder": (40, 6), "ae_hc": (40, 6), "detector": (64, 64, 3)}


def test_a_snapshot_does_not_follow_the_model():
    model = torch.nn.Linear(1, 1)
    before, taken = model.weight.item(), snapshot(model)
    with torch.no_grad():
        model.weight += 1
    assert taken["weight"].item() == before


def test_a_last_batch_of_one_is_dropped():
    assert [part.tolist() for part in parts_of(np.arange(5), 2)] == [[0, 1], [2, 3]]
    assert [part.tolist() for part in parts_of(np.arange(6), 4)] == [[0, 1, 2, 3], [4, 5]]
    assert parts_of(np.arange(1), 4) == []


@pytest.mark.parametrize("name", MODELS.names())
def test_a_model_is_loaded_and_copied_as_by_its_state_dict(name):
    spec, shape = MODELS.create({"name": name}), SHAPES.get(name, (32, 32, 3))
    model, other = spec.build(shape, 3), spec.build(shape, 3)
    wanted = other.state_dict()
    assert list(tensors(model)) == list(wanted)
    load(model, snapshot(other))
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in model.state_dict().items())


def with_empty_places():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.BatchNorm1d(2))
    model.register_buffer("scratch", torch.zeros(1), persistent=False)
    model.register_module("unused", None)
    return model


def test_what_a_state_dict_leaves_out_is_left_out():
    assert list(tensors(with_empty_places())) == list(with_empty_places().state_dict())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda state: state.pop("weight"), "Missing key.*weight"),
        (lambda state: state.update(more=state["bias"]), "Unexpected key.*more"),
        (lambda state: state.update(bias=torch.zeros(2)), "size mismatch for bias"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(wrong, named):
    model = torch.nn.Linear(3, 1)
    state = snapshot(model)
    wrong(state)
    with pytest.raises(RuntimeError, match=named):
        load(model, state)
