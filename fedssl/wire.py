"""Payloads and updates as named records of arrays and values; Flower's record classes are handed in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, TypeVar, get_origin, get_type_hints

import numpy as np
import torch

T = TypeVar("T")
VALUES = "values"
PROTOCOL = 1
"""Version of what clients and server say to each other."""


@functools.cache
def tensor_array(base: type[Any]) -> type[Any]:
    """Give a subclass of Flower's `Array` that holds an ndarray and serialises it only when bytes are asked for."""

    class TensorArray(base):  # type: ignore[misc]
        def __init__(self, ndarray: np.ndarray[Any, Any]) -> None:
            # Flower's own `__setattr__` costs more than all the rest of a small message.
            self.__dict__.update(
                dtype=dtype_name(ndarray.dtype), shape=ndarray.shape, stype="numpy.ndarray", held=ndarray
            )

        @property
        def data(self) -> bytes:
            buffer = BytesIO()
            np.save(buffer, self.held, allow_pickle=False)
            return buffer.getvalue()

        def numpy(self) -> np.ndarray[Any, Any]:
            found: np.ndarray[Any, Any] = self.held
            return found

        def __reduce__(self) -> tuple[Any, ...]:
            return _rebuild, (base, self.held)

    return TensorArray


@functools.cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Give numpy's name of a type, which numpy itself works out anew each time."""
    return str(dtype)


def _rebuild(base: type[Any], ndarray: np.ndarray[Any, Any]) -> Any:
    return tensor_array(base)(ndarray)  # type: ignore[arg-type]


def filled(record: type[Any], items: dict[str, Any]) -> Any:
    """Give Flower's `record` of items known to fit it: its own check of each costs most of a small message."""
    made = _empty(record).copy()  # type: ignore[arg-type]
    made.__dict__["_data"] = items
    return made


@functools.cache
def _empty(record: type[Any]) -> Any:
    return record()


def array_record(state: Mapping[str, torch.Tensor], record: type[Any], array: type[Any]) -> Any:
    """Give Flower's `record` of tensors; they are referred to, not copied."""
    cls = tensor_array(array)  # type: ignore[arg-type]
    return filled(record, {name: cls(tensor.detach().cpu().numpy()) for name, tensor in state.items()})


def encode(
    message: Any,
    arrays: Callable[[Mapping[str, torch.Tensor]], Any],
    values: Callable[[dict[str, Any]], Any],
) -> dict[str, Any]:
    """Give a record for each mapping in a dataclass, and one named `values` for its scalars.

    Tensors go through `arrays`, scalars and pairs of numbers through `values`. Raises TypeError on anything else.
    """
    records: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    for item in dataclasses.fields(message):
        value = getattr(message, item.name)
        if isinstance(value, dict):
            if _holds_tensors(type(message), item.name):  # type: ignore[arg-type]
                records[item.name] = arrays(value)
            else:
                records[item.name] = values({name: _number_pair(item) for name, item in value.items()})
        elif isinstance(value, (bool, int, float, str)):
            scalars[item.name] = value
        else:
            raise TypeError(f"{type(message).__name__}.{item.name}: {type(value).__name__} cannot be sent")
    records[VALUES] = values(scalars)
    return records


def decode(cls: type[T], records: Mapping[str, Any], tensors: Callable[[str, Any], dict[str, torch.Tensor]]) -> T:
    """Build the dataclass that `encode` took apart; `tensors` turns (field, record) into tensors.

    Raises KeyError on a missing record or value.
    """
    found: dict[str, Any] = {}
    scalars = records[VALUES]
    hints = _hints(cls)  # type: ignore[arg-type]
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        if get_origin(hints[item.name]) is not dict:
            found[item.name] = scalars[item.name]
        elif _holds_tensors(cls, item.name):  # type: ignore[arg-type]
            found[item.name] = tensors(item.name, records[item.name])
        else:
            pairs = dict(records[item.name])
            found[item.name] = {k: tuple(v) if isinstance(v, list) else v for k, v in pairs.items()}
    return cls(**found)


def tensors_of(record: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Copy a record's arrays into C-contiguous tensors of their own: alignment and strides change the last bits."""
    return {name: torch.from_numpy(np.array(array.numpy(), order="C", copy=True)) for name, array in record.items()}


def _number_pair(value: Any) -> Any:
    return [float(part) for part in value] if isinstance(value, tuple) else value


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


@functools.cache
def _holds_tensors(cls: type[Any], name: str) -> bool:
    return "Tensor" in str(_hints(cls)[name])  # type: ignore[arg-type]
