"""One client a natural group: a person, a device, a domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedssl.config import ConfigError
from fedssl.partition.base import PARTITIONS, Ints, Partition, by_group
from fedssl.rng import Rng


@PARTITIONS.register("natural")
@dataclass
class Natural(Partition):
    """Client k holds the k-th group by number, of those the server has not, and is tested on that group's test samples.

    Where data have domains (weathers), on the test samples of those it trains on. Groups beyond the number of clients
    are left out.
    """

    def assign(self, y: Ints, group: Ints, num_clients: int, rng: Rng) -> list[Ints]:
        """Give each client its group's samples; those without a group are nobody's."""
        del y, rng
        return by_group(group, self.client_groups(group, num_clients))

    def client_groups(self, group: Ints, num_clients: int) -> Ints:
        """Give the lowest `num_clients` groups. Raises ConfigError if there are fewer."""
        found = np.unique(group[group >= 0])
        if not len(found):
            raise ConfigError("partition", self.name, "another one, such as iid: these samples have no natural groups")
        if num_clients > len(found):
            allowed = f"at most {len(found)}, the groups (people, devices, domains) that are not the server's"
            raise ConfigError("clients", num_clients, allowed)
        return found[:num_clients]
