"""Scores of the global model from one pass over the test samples, for all and for each client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.assembly import Parts
from fedssl.calibration.centroid import CENTROIDS
from fedssl.config import Experiment
from fedssl.data.arrays import first_of_each
from fedssl.data.base import Dataset, Samples
from fedssl.data.modality import model_input
from fedssl.methods.base import ServerState
from fedssl.metrics.reliability import reliability
from fedssl.models.base import Outputs
from fedssl.partition.split import Split
from fedssl.runtime import autocast
from server import open_world

Scores = dict[str, float]
_PICTURED = 1000


@dataclass
class Evaluation:
    """Scores of one round: on test and validation samples, and by client id."""

    test: Scores = field(default_factory=dict)
    validation: Scores = field(default_factory=dict)
    clients: dict[int, Scores] = field(default_factory=dict)


class Scorer:
    """Scores a server state with data that the server has, as in a simulation."""

    def __init__(
        self, experiment: Experiment, dataset: Dataset, split: Split, parts: Parts, model: torch.nn.Module
    ) -> None:
        self.experiment = experiment
        self.dataset = dataset
        self.split = split
        self.hook = parts.calibration
        self.task = parts.task
        self.model = model
        self.device = next(model.parameters()).device
        self.pool = np.unique(split.validation_index)

    def __call__(self, server: ServerState) -> Evaluation:
        """Score the calibrated global model."""
        logits = self._logits(server, self.dataset.test, np.arange(len(self.dataset.test)))
        calibrated = self._calibrated(logits, server)
        y, kinds = self.dataset.test.y, self.split.kinds
        found = Evaluation(test=self.task.score(calibrated, y, kinds))
        if calibrated is not logits:
            found.test["uncalibrated_ece"] = self.task.score(logits, y, kinds)["ece"]
        if len(self.pool):
            held = self._calibrated(self._logits(server, self.dataset.train, self.pool), server)
            found.validation = self.task.score(held, self.dataset.train.y[self.pool], kinds)
        if self.experiment.evaluation.transductive:
            found.test |= {f"transductive_{name}": value for name, value in self._transductive(server).items()}
        columns = self.task.by_client(calibrated, y, self.split.test_index, self.split.test_offsets, kinds)
        for client_id in range(self.split.num_clients):
            found.clients[client_id] = {name: float(values[client_id]) for name, values in columns.items()}
        return found

    def _transductive(self, server: ServerState) -> Scores:
        """Score the samples that clients trained on without labels, where anybody knows their class."""
        index = np.unique(self.split.train_index[self.split.label < 0])
        logits = self._calibrated(self._logits(server, self.dataset.train, index), server)
        return self.task.score(logits, self.dataset.train.y[index], self.split.kinds)

    def reliability(self, server: ServerState) -> dict[str, Any]:
        """Give the bins of the reliability diagram on test samples, before and after calibration."""
        logits = self._logits(server, self.dataset.test, np.arange(len(self.dataset.test)))
        calibrated = self._calibrated(logits, server)
        y = self.dataset.test.y
        return {
            "uncalibrated": reliability(self.task.by_class(logits, y), y),
            "calibrated": None if calibrated is logits else reliability(self.task.by_class(calibrated, y), y),
        }

    def open_world(self, server: ServerState) -> dict[str, Any]:
        """Give the open-world report's numbers on test samples: see `server.open_world`."""
        test, names = self.dataset.test, self.dataset.class_names
        logits = self._calibrated(self._logits(server, test, np.arange(len(test))), server)
        found = open_world.describe(logits.argmax(axis=1), test.y, names, self.split.kinds)
        shown = first_of_each(test.y, max(1, _PICTURED // len(names)))
        if len(shown):
            features, centroids = self._features(server, test, shown), server.extra.get(CENTROIDS)
            fits = centroids is not None and centroids.shape == (len(names), features.shape[1])
            rows = centroids.detach().cpu().double().numpy() if centroids is not None and fits else None
            found |= open_world.picture(features, test.y[shown], rows, found["named"])
        return found

    def _calibrated(self, logits: NDArray[np.float32], server: ServerState) -> NDArray[np.float32]:
        given = torch.from_numpy(logits)
        made = self.hook.apply(given, {name: tensor.cpu() for name, tensor in server.extra.items()})
        return logits if made is given else made.numpy()

    def _logits(self, server: ServerState, samples: Samples, index: NDArray[np.int64]) -> NDArray[np.float32]:
        self.model.load_state_dict(server.model)
        with autocast(self.experiment.precision, self.device):
            return self.task.predict(self.model, self._batches(samples, index))

    def _features(self, server: ServerState, samples: Samples, index: NDArray[np.int64]) -> NDArray[np.float64]:
        self.model.load_state_dict(server.model)
        found: list[NDArray[np.float64]] = []

        def keep(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], outputs: Outputs) -> None:
            del module, inputs
            found.append(outputs.features.double().cpu().numpy())

        handle = self.model.register_forward_hook(keep)
        try:
            with autocast(self.experiment.precision, self.device):
                self.task.predict(self.model, self._batches(samples, index))
        finally:
            handle.remove()
        return np.concatenate(found)

    def _batches(self, samples: Samples, index: NDArray[np.int64]) -> Iterator[torch.Tensor]:
        size = self.experiment.evaluation.batch_size
        for i in range(0, len(index), size):
            x = torch.from_numpy(samples.x[index[i : i + size]]).to(self.device)
            yield model_input(x, self.dataset.mean, self.dataset.std, self.dataset.limit)
