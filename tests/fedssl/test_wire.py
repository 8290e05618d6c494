"""Tests of fedssl.wire."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedssl.federation import Payload, State, Update
from fedssl.methods.base import METHODS
from fedssl.wire import array_record, decode, encode, filled, tensor_array, tensors_of


def to_arrays(state: State) -> ArrayRecord:
    return array_record(state, ArrayRecord, Array)


def over_the_wire(message: Any) -> Any:
    records = RecordDict(encode(message, to_arrays, ConfigRecord))
    plain = ArrayRecord({k: Array(a.numpy()) for k, a in records.array_records["state"].items()})
    records["state"] = plain
    return decode(type(message), records, lambda _, record: tensors_of(record))


STATES: dict[str, State] = {
    "empty": {},
    "types": {
        "float": torch.tensor([[1.5, -0.0], [float("nan"), 1e-40]]),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "half": torch.tensor([0.5], dtype=torch.float16),
        "counter": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "none": torch.zeros(0, 3),
    },
    "strided": {"t": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)[:, :, ::2]},
}


def assert_same(found: State, expected: State) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("name", STATES)
def test_an_update_comes_back_bit_for_bit(name: str):
    sent = Update(3, 17, STATES[name], {"centroid": torch.ones(2)}, {"loss": (1.25, 4.0), "rate": (0.0, 0.0)})
    found = over_the_wire(sent)
    assert (found.client_id, found.num_examples, found.metrics) == (3, 17, sent.metrics)
    assert_same(found.state, sent.state)
    assert_same(found.statistics, sent.statistics)


def test_an_update_without_statistics_and_metrics_comes_back():
    assert over_the_wire(Update(0, 0, {})) == Update(0, 0, {})


@pytest.mark.parametrize("method", METHODS.names())
def test_every_payload_comes_back(method: str):
    payload = METHODS.get(method).payload_type(state=STATES["types"])
    assert_same(over_the_wire(payload).state, STATES["types"])


@dataclass
class Rich(Payload):
    anchors: State = field(default_factory=dict)
    phase: str = "warm"
    share: float = 0.5
    frozen: bool = True


def test_an_extended_payload_comes_back_with_its_own_fields():
    found = over_the_wire(Rich(STATES["types"], {"a": torch.ones(3)}, "end", 0.25, False))
    assert (found.phase, found.share, found.frozen) == ("end", 0.25, False)
    assert_same(found.anchors, {"a": torch.ones(3)})


@dataclass
class Wrong(Payload):
    thing: object = None


def test_what_cannot_be_sent_is_named():
    with pytest.raises(TypeError, match=r"Wrong\.thing: NoneType cannot be sent"):
        encode(Wrong({}), to_arrays, ConfigRecord)


def test_a_missing_record_is_an_error():
    records = encode(Update(1, 2, {}), to_arrays, ConfigRecord)
    del records["statistics"]
    with pytest.raises(KeyError, match="statistics"):
        decode(Update, records, lambda _, record: tensors_of(record))


def test_a_held_array_serialises_as_flowers_own_does():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    held, plain = tensor_array(Array)(values), Array(values)
    saved = BytesIO()
    np.save(saved, values, allow_pickle=False)
    assert held.data == plain.data == saved.getvalue()
    assert (held.dtype, tuple(held.shape), held.stype) == (plain.dtype, tuple(plain.shape), plain.stype)
    assert ArrayRecord({"a": held}).object_id == ArrayRecord({"a": plain}).object_id


def test_a_held_array_pickles():
    held = tensor_array(Array)(np.arange(3))
    copy = pickle.loads(pickle.dumps(held))
    assert type(copy) is type(held)
    np.testing.assert_array_equal(copy.numpy(), [0, 1, 2])


def test_decoded_tensors_own_their_memory():
    sent = torch.zeros(3)
    found = tensors_of(to_arrays({"a": sent}))["a"]
    found += 1
    assert sent.tolist() == [0.0, 0.0, 0.0]
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    tensors_of({"a": tensor_array(Array)(frozen)})["a"].add_(1)
    assert frozen.tolist() == [0.0, 0.0, 0.0]


def test_decoded_tensors_are_contiguous_whatever_the_strides_that_were_sent():
    sent = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    found = tensors_of(to_arrays({"a": sent, "count": torch.tensor(3)}))
    assert found["a"].stride() == (24, 12, 4, 1)
    assert torch.equal(found["a"], sent)
    assert found["count"].shape == ()


def test_a_filled_record_is_the_one_that_flower_builds():
    items = {"a": 1, "b": 2.5}
    made = filled(ConfigRecord, items)
    assert type(made) is ConfigRecord
    assert made == ConfigRecord(dict(items))
    assert made.__dict__.keys() == ConfigRecord().__dict__.keys()
    assert pickle.loads(pickle.dumps(made)) == made
    made["c"] = 3
    assert len(filled(ConfigRecord, {})) == 0
    with pytest.raises(TypeError):
        made["d"] = object()
