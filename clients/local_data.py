"""The samples of one client, found from the experiment; the split is computed once and cached."""

from __future__ import annotations

import torch

from fedssl.assembly import split_of
from fedssl.config import Experiment
from fedssl.data.base import SOURCES, Dataset
from fedssl.data.cache import open_dataset
from fedssl.data.views import ClientData
from fedssl.partition.split import Split


class LocalData:
    """Gives `ClientData` by client id from memory maps that all workers share."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        source = SOURCES.create(experiment.data)
        self.flip = source.flip
        self.device = device
        self.dataset: Dataset = open_dataset(source)
        self.split: Split = split_of(experiment, self.dataset)
        self.given = self.split.given(len(self.dataset.train))

    def client(self, client_id: int) -> ClientData:
        """Give the client's samples. Raises ValueError for an id outside the federation."""
        if not 0 <= client_id < self.split.num_clients:
            raise ValueError(f"client {client_id} is not one of {self.split.num_clients} clients")
        indices, kinds = self.split.client(client_id), self.split.kinds
        return ClientData(client_id, self.dataset, indices, self.given, self.flip, self.device, kinds)
