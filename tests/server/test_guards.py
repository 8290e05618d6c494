"""Tests of server.guards: every answer that must be refused is, by name."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
import toys
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedssl.federation import State, Update
from fedssl.wire import array_record, encode
from server.guards import MAX_EXAMPLES, MAX_METRICS, Refused, accept, is_finite

TEMPLATE: State = {"w": torch.zeros(2, 3), "count": torch.tensor(0)}
GOOD = Update(1, 10, {"w": torch.ones(2, 3), "count": torch.tensor(4)}, metrics={"loss": (3.0, 2.0)})


def to_arrays(state: State) -> ArrayRecord:
    return array_record(state, ArrayRecord, Array)


def judge(update: Update, **changed: Any) -> Update:
    """Send an update as a client would, some records changed, past the guard."""
    content = RecordDict({**encode(update, to_arrays, ConfigRecord), **changed})
    return accept(toys.reply_with(content), 1, TEMPLATE)


def plain(array: np.ndarray[Any, Any], **changed: Any) -> Array:
    """Give Flower's own array, as it arrives over a network; some of its fields changed."""
    made = Array(array)
    fields = {"dtype": made.dtype, "shape": made.shape, "stype": made.stype, "data": made.data, **changed}
    return Array(**fields)


def with_w(array: Array) -> ArrayRecord:
    return ArrayRecord({"w": array, "count": plain(np.array(4))})


def npy(shape: tuple[int, ...], dtype: str = "<f4", data: bytes = b"") -> bytes:
    """Give an .npy that claims a shape, whatever it holds."""
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue() + data


def test_a_good_answer_is_taken_as_it_is():
    found = judge(GOOD)
    assert (found.client_id, found.num_examples, found.metrics) == (1, 10, {"loss": (3.0, 2.0)})
    assert torch.equal(found.state["w"], GOOD.state["w"])
    assert found.state["count"].item() == 4
    found = judge(GOOD, state=with_w(plain(np.full((2, 3), 2, np.float32))))
    assert found.state["w"].tolist() == [[2.0] * 3] * 2


BAD_STATES: dict[str, tuple[State, str]] = {
    "nan": ({**GOOD.state, "w": torch.full((2, 3), float("nan"))}, "w holds NaN or infinity"),
    "infinity": ({**GOOD.state, "w": torch.full((2, 3), float("-inf"))}, "w holds NaN or infinity"),
    "shape": ({**GOOD.state, "w": torch.zeros(3, 2)}, r"w is float32\[3, 2\], not float32\[2, 3\]"),
    "dtype": ({**GOOD.state, "w": torch.zeros(2, 3, dtype=torch.float64)}, r"w is float64\[2, 3\], not float32"),
    "missing": ({"w": torch.zeros(2, 3)}, r"unexpected arrays \[\] and lacks \['count'\]"),
    "extra": ({**GOOD.state, "z": torch.zeros(1)}, r"unexpected arrays \['z'\] and lacks \[\]"),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_a_wrong_state_is_refused(case: str):
    state, text = BAD_STATES[case]
    with pytest.raises(Refused, match=text):
        judge(dataclasses.replace(GOOD, state=state))


BAD_ARRAYS: dict[str, tuple[Array, str]] = {
    "oversized": (plain(np.zeros((2, 3), np.float32), data=npy((2, 3), data=b"\0" * 10**6)), "bytes where 24 are"),
    "short": (plain(np.zeros((2, 3), np.float32), data=b""), "w has 0 bytes where 24 are expected"),
    "other shape inside": (plain(np.zeros((2, 3), np.float32), data=npy((10**9, 3), data=b"\0" * 24)), "than it decl"),
    "other type inside": (plain(np.zeros((2, 3), np.float32), data=npy((2, 3), "<i4", b"\0" * 24)), "than it declares"),
    "no npy": (plain(np.zeros((2, 3), np.float32), data=b"PK\3\4" + b"\0" * 200), "w cannot be read"),
    "pickle": (plain(np.zeros((2, 3), np.float32), data=npy((2, 3), "|O", b"\x80\x04K\x01." * 9)), "w "),
    "torn": (plain(np.zeros((2, 3), np.float32), data=npy((2, 3), data=b"\0" * 23)), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_an_array_that_lies_is_refused_before_it_is_decoded(case: str):
    array, text = BAD_ARRAYS[case]
    with pytest.raises(Refused, match=text):
        judge(GOOD, state=with_w(array))


def values(**changed: Any) -> ConfigRecord:
    return ConfigRecord({"client_id": 1, "num_examples": 10, **changed})


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (values(client_id=2), "answer names client 2"),
        (values(num_examples=-1), "num_examples=-1 is not a whole number"),
        (values(num_examples=MAX_EXAMPLES + 1), "num_examples=1000000001 is not"),
        (values(num_examples=float("nan")), "num_examples=nan is not"),
        (values(num_examples=2.0), "num_examples=2.0 is not"),
        (values(num_examples=True), "num_examples=True is not"),
        (ConfigRecord({"client_id": 1}), "answer cannot be read: KeyError"),
    ],
)
def test_wrong_numbers_are_refused(record: ConfigRecord, text: str):
    with pytest.raises(Refused, match=text):
        judge(GOOD, values=record)


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": [float("nan"), 1.0]},
        {"loss": [1.0, float("inf")]},
        {"loss": [1.0, -1.0]},
        {"loss": [1.0]},
        {"loss": [1.0, 1.0, 1.0]},
        {"loss": ["a", "b"]},
        {"loss": 3.0},
        {str(i): [0.0, 1.0] for i in range(MAX_METRICS + 1)},
    ],
)
def test_metrics_that_are_no_sums_and_counts_are_refused(metrics: dict[str, Any]):
    with pytest.raises(Refused, match="metric"):
        judge(GOOD, metrics=ConfigRecord(metrics))


def test_statistics_are_bounded_by_what_they_declare_and_declare_what_they_hold(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.guards.MAX_STATISTICS_BYTES", 4096)
    fits = judge(dataclasses.replace(GOOD, statistics={"mean": torch.ones(500)}))
    assert fits.statistics["mean"].sum() == 500
    bad = {
        "statistics declare": ArrayRecord({"m": plain(np.zeros(1000, np.float32))}),
        "m has 4128 bytes where 4 are expected": ArrayRecord({"m": plain(np.zeros(1000, np.float32), shape=(1,))}),
        "m holds other data": ArrayRecord({"m": plain(np.zeros(1, np.float32), data=npy((10**12,), data=b"\0" * 4))}),
        r"m is float32\[-1\]": ArrayRecord({"m": plain(np.zeros(1, np.float32), shape=(-1,))}),
        r"m is <U9\[1\]": ArrayRecord({"m": plain(np.zeros(1, "<U9"))}),
        "m holds NaN": ArrayRecord({"m": plain(np.array([np.inf], np.float32))}),
    }
    for text, record in bad.items():
        with pytest.raises(Refused, match=text):
            judge(GOOD, statistics=record)


def test_many_small_statistics_count_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.guards.MAX_STATISTICS_BYTES", 4096)
    with pytest.raises(Refused, match="statistics declare 4112 bytes"):
        judge(dataclasses.replace(GOOD, statistics={str(i): torch.zeros(1) for i in range(4)}))


def test_an_error_carries_the_clients_own_text():
    from flwr.app import Error, Message

    from simulations.engine import internals

    asked = Message(RecordDict(), dst_node_id=internals.node_of(1), message_type="train")
    internals.give_id(asked)
    with pytest.raises(Refused, match="Traceback of the client"):
        accept(internals.error_reply(asked, "Traceback of the client"), 1, TEMPLATE)
    with pytest.raises(Refused, match="error 7 without a text"):
        accept(Message(Error(code=7, reason=None), reply_to=asked), 1, TEMPLATE)


def test_a_sum_that_overflows_is_no_infinity():
    assert is_finite(torch.full((4,), 3e38))
    assert not is_finite(torch.tensor([float("inf"), float("-inf")]))
    assert is_finite(torch.tensor([2**62] * 4))
