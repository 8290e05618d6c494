"""Equal shares, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedssl.partition.base import PARTITIONS, Ints, Partition, check_clients
from fedssl.partition.flower import MAX_CLIENTS, flower_parts
from fedssl.rng import Rng


@PARTITIONS.register("iid")
@dataclass
class Iid(Partition):
    """Deals equal numbers of samples, whatever their class (flwr-datasets IidPartitioner)."""

    def assign(self, y: Ints, group: Ints, num_clients: int, rng: Rng) -> list[Ints]:
        """Deal shuffled samples: the partitioner itself has no seed and cuts in order."""
        del group
        check_clients(len(y), num_clients)
        order = rng.numpy("partition").permutation(len(y))
        parts = None
        if num_clients <= MAX_CLIENTS:
            parts = flower_parts("IidPartitioner", y[order], num_clients)
        if parts is None:
            parts = np.array_split(np.arange(len(y)), num_clients)
        return [np.sort(order[part]) for part in parts]
