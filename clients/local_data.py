"""The samples of one client, found from the experiment; the split is computed once and cached."""

from __future__ import annotations

import torch

from fedssl.assembly import split_of
from fedssl.config import Experiment
from fedssl.data.base import SOURCES
from fedssl.data.cache import open_dataset
from fedssl.partition.client_data import ClientDataFactory


class LocalData(ClientDataFactory):
    """Gives `ClientData` by client id from memory maps that all workers share."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        source = SOURCES.create(experiment.data)
        dataset = open_dataset(source)
        super().__init__(dataset, split_of(experiment, dataset), source.flip, device)
