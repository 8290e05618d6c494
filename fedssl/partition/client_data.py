"""What each holder of a split sees of the shared arrays: the clients, and the server where it has samples."""

from __future__ import annotations

import torch

from fedssl.data.base import Dataset
from fedssl.data.views.client_data import ClientData
from fedssl.partition.split import Split

SERVER = -1


class ClientDataFactory:
    """Makes the `ClientData` of clients, by id, and of the server."""

    def __init__(self, dataset: Dataset, split: Split, flip: bool, device: torch.device) -> None:
        self.dataset, self.split, self.flip, self.device = dataset, split, flip, device
        self.given = split.given(len(dataset.train))

    def client(self, client_id: int) -> ClientData:
        """Return the client's samples. Raises ValueError for an id outside the federation."""
        if not 0 <= client_id < self.split.num_clients:
            raise ValueError(f"client {client_id} is not one of {self.split.num_clients} clients")
        indices, kinds = self.split.client(client_id), self.split.kinds
        return ClientData(client_id, self.dataset, indices, self.given, self.flip, self.device, kinds)

    def server(self) -> ClientData | None:
        """Return the server's own samples, all labelled; None without any."""
        indices, kinds = self.split.server(), self.split.kinds
        if not len(indices.labelled):
            return None
        return ClientData(SERVER, self.dataset, indices, self.given, self.flip, self.device, kinds)
