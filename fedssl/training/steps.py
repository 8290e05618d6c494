"""Steps of training that methods share: batches, copies of a model, and a check of the server's data."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.views.client_data import ClientData


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy a model's tensors, since the model itself is scratch."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def check_server_data(method: str, data: ClientData | None) -> None:
    """Check that the server holds labelled samples. Raises ConfigError on `method`."""
    if data is None or not len(data.labelled):
        allowed = "one that needs no labelled samples at the server, as no data were set aside for it"
        ways = "labels=server, data.server_subjects, or the party `server` in a table of pictures"
        raise ConfigError("method", method, f"{allowed} ({ways})")


def parts_of(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut indices into batches of `size`; a last batch of one is dropped, as batch norm cannot use it."""
    return [part for i in range(0, len(order), size) if len(part := order[i : i + size]) > 1]
