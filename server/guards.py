"""What the server takes from a client, and what it refuses by name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict

from fedssl.federation import State, Update
from fedssl.wire import decode, dtype_name, tensors_of

MAX_STATISTICS_BYTES = 64 * 2**20
MAX_EXAMPLES = 10**9
MAX_METRICS = 1000
NPY_HEADER_BYTES = 1024
SENDABLE = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


class Refused(ValueError):
    """An answer that the server does not use; the text says why."""


def accept(
    reply: Message, client_id: int, template: State, check_statistics: Callable[[State], None] = lambda _: None
) -> Update:
    """Give the update in a reply whose tensors have the template's names, shapes and types, all finite.

    `check_statistics` is the calibration hook's own check. Raises Refused with the client's own traceback or with
    what is wrong with its answer.
    """
    if reply.has_error():
        raise Refused(reply.error.reason or f"error {reply.error.code} without a text")
    content = reply.content
    check_arrays("state", content, template)
    _check_statistics(content)
    try:
        update = decode(Update, content, lambda _, record: tensors_of(record))
    except Exception as error:
        raise Refused(f"answer cannot be read: {type(error).__name__}: {error}") from None
    _check_numbers(update, client_id)
    for name, tensor in (*update.state.items(), *update.statistics.items()):
        if not is_finite(tensor):
            raise Refused(f"{name} holds NaN or infinity")
    try:
        check_statistics(update.statistics)
    except Exception as error:
        raise Refused(f"statistics are refused: {error}") from None
    return update


def check_arrays(record: str, content: RecordDict, template: Mapping[str, torch.Tensor]) -> None:
    """Check names, shapes, types and byte counts before anything is decoded. Raises Refused."""
    arrays = content.get(record)
    if not isinstance(arrays, ArrayRecord):
        raise Refused(f"answer has no {record!r} arrays")
    if arrays.keys() != template.keys():
        extra, missing = sorted(set(arrays) - set(template)), sorted(set(template) - set(arrays))
        raise Refused(f"answer has unexpected arrays {extra} and lacks {missing}")
    for name, tensor in template.items():
        _check_array(name, arrays[name], tensor)


def _check_array(name: str, array: Array, tensor: torch.Tensor) -> None:
    expected = (_name(tensor.dtype), tuple(tensor.shape))
    if (array.dtype, tuple(array.shape)) != expected:
        raise Refused(f"{name} is {array.dtype}{list(array.shape)}, not {expected[0]}{list(expected[1])}")
    _check_data(name, array)


@functools.cache
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_statistics(content: RecordDict) -> None:
    arrays = content.get("statistics", ArrayRecord())
    if not isinstance(arrays, ArrayRecord):
        raise Refused("answer has no 'statistics' arrays")
    size = sum(NPY_HEADER_BYTES + _size(name, array) for name, array in arrays.items())
    if size > MAX_STATISTICS_BYTES:
        raise Refused(f"statistics declare {size} bytes, more than {MAX_STATISTICS_BYTES}")
    for name, array in arrays.items():
        _check_data(name, array)


def _size(name: str, array: Array) -> int:
    """Give the bytes that an array declares."""
    if array.dtype not in SENDABLE or any(length < 0 for length in array.shape):
        raise Refused(f"{name} is {array.dtype}{list(array.shape)}, which no client sends")
    return np.dtype(array.dtype).itemsize * math.prod(array.shape)


def _check_data(name: str, array: Array) -> None:
    """Check that an array holds what it declares, from its header and length alone."""
    declared = (array.dtype, tuple(array.shape))
    held = getattr(array, "held", None)
    if held is not None:
        found = (dtype_name(held.dtype), held.shape)
    else:
        size = _size(name, array)
        if not size <= len(array.data) <= size + NPY_HEADER_BYTES:
            raise Refused(f"{name} has {len(array.data)} bytes where {size} are expected")
        found = _header(name, array.data)
    if found != declared:
        raise Refused(f"{name} holds other data than it declares")


def _header(name: str, data: bytes) -> tuple[str, tuple[int, ...]]:
    """Give type and shape from the head of an .npy, so that no unchecked length is ever allocated."""
    file = BytesIO(data[:NPY_HEADER_BYTES])
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of .npy")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:
        raise Refused(f"{name} cannot be read: {error}") from None
    return str(dtype), shape


def _check_numbers(update: Update, client_id: int) -> None:
    if update.client_id != client_id:
        raise Refused(f"answer names client {update.client_id!r}")
    count: Any = update.num_examples
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_EXAMPLES:
        raise Refused(f"num_examples={count!r} is not a whole number from 0 to {MAX_EXAMPLES}")
    if len(update.metrics) > MAX_METRICS:
        raise Refused(f"answer has {len(update.metrics)} metrics, more than {MAX_METRICS}")
    for name, pair in update.metrics.items():
        if not _is_mean(pair):
            raise Refused(f"metric {name} is {pair!r}, not a finite sum and its count")


def _is_mean(pair: Any) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(isinstance(part, (int, float)) and math.isfinite(part) for part in pair)
        and pair[1] >= 0
    )


def is_finite(tensor: torch.Tensor) -> bool:
    """Say whether no value is NaN or infinite; the sum decides unless it overflows."""
    if not tensor.is_floating_point():
        return True
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())
