"""Steps of training that methods share: batches, copies of a model, and a check of the server's data."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.views.client_data import ClientData
from fedssl.federation import State


def load(model: torch.nn.Module, state: State) -> None:
    """Copy a state into a model, as `load_state_dict` does in five times the time. Raises RuntimeError as that does."""
    held = tensors(model)
    fits = held.keys() == state.keys() and all(state[name].shape == tensor.shape for name, tensor in held.items())
    if not fits:
        model.load_state_dict(state)  # tells what is missing, too much or of another shape
        return
    with torch.no_grad():
        torch._foreach_copy_(list(held.values()), [state[name] for name in held])


def snapshot(model: torch.nn.Module) -> State:
    """Copy a model's tensors, since the model itself is scratch."""
    return {name: tensor.detach().clone() for name, tensor in tensors(model).items()}


def tensors(module: torch.nn.Module, prefix: str = "") -> State:
    """Return the tensors of `state_dict()` under their names, themselves: parameters and persistent buffers."""
    found: State = {prefix + name: tensor for name, tensor in module._parameters.items() if tensor is not None}
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            found[prefix + name] = buffer
    for name, child in module._modules.items():
        if child is not None:
            found |= tensors(child, f"{prefix}{name}.")
    return found


def check_server_data(method: str, data: ClientData | None) -> None:
    """Check that the server holds labelled samples. Raises ConfigError on `method`."""
    if data is None or not len(data.labelled):
        allowed = "one that needs no labelled samples at the server, as no data were set aside for it"
        ways = "labels=server, data.server_subjects, or the party `server` in a table of pictures"
        raise ConfigError("method", method, f"{allowed} ({ways})")


def parts_of(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut indices into batches of `size`; a last batch of one is dropped, as batch norm cannot use it."""
    return [part for i in range(0, len(order), size) if len(part := order[i : i + size]) > 1]
