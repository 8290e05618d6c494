"""A client's own state between rounds, kept in Flower's `Context.state`, which never leaves the client."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedssl.wire import array_record, tensors_of

TENSORS = "memory.tensors"
VALUES = "memory.values"


def read(state: RecordDict) -> dict[str, Any]:
    """Give the memory as name to tensor or scalar; empty for a client that has none yet."""
    memory: dict[str, Any] = {}
    if TENSORS in state:
        memory.update(tensors_of(state[TENSORS]))  # type: ignore[arg-type]
    if VALUES in state:
        memory.update(state[VALUES])
    return memory


def write(state: RecordDict, memory: dict[str, Any]) -> None:
    """Replace the memory. Raises TypeError for a value that is no tensor, float, int or str."""
    tensors = {name: value for name, value in memory.items() if isinstance(value, torch.Tensor)}
    values = {name: value for name, value in memory.items() if name not in tensors}
    for name, value in values.items():
        if not isinstance(value, (float, int, str)):
            raise TypeError(f"memory {name!r} is a {type(value).__name__}, not a tensor, float, int or str")
    for key in (TENSORS, VALUES):
        if key in state:
            del state[key]
    if tensors:
        state[TENSORS] = array_record({k: t.clone() for k, t in tensors.items()}, ArrayRecord, Array)
    if values:
        state[VALUES] = ConfigRecord(values)


def digest(memory: dict[str, Any]) -> str:
    """Give the SHA-256 over sorted names with type, shape and little-endian bytes."""
    found = hashlib.sha256()
    for name in sorted(memory):
        value = memory[name]
        if isinstance(value, torch.Tensor):
            array = value.contiguous().numpy()
            found.update(f"{name}|{array.dtype}|{array.shape}|".encode())
            found.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        else:
            found.update(f"{name}|{type(value).__name__}|{value!r}|".encode())
    return found.hexdigest()
