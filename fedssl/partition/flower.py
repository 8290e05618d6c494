"""The partitioners of flwr-datasets, which are slow to import and slow with many clients."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.partition.base import Ints

MAX_CLIENTS = 200
"""Above this many clients our own code is used: loading a partition takes 1 ms a client."""


def flower_parts(name: str, y: Ints, num_clients: int, **options: Any) -> list[Ints] | None:
    """Give what the partitioner `name` makes of the classes `y`, or None if it gives up.

    The result is checked: every position once, and no more.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
        from flwr_datasets import partitioner as partitioners

        made = getattr(partitioners, name)(num_clients, **options)
        made.dataset = datasets.Dataset.from_dict({"row": np.arange(len(y)), "y": y})
        try:
            parts = [_rows(made.load_partition(client)) for client in range(num_clients)]
        except ValueError:
            return None
    everything = np.sort(np.concatenate(parts))
    return parts if np.array_equal(everything, np.arange(len(y))) else None


def _rows(partition: Any) -> NDArray[np.int64]:
    return np.asarray(partition.with_format("numpy")["row"][:], np.int64)
