"""Scores of the global model from one pass over the test samples, for all and for each client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.assembly import Parts
from fedssl.config import Experiment
from fedssl.data.augment import normalise
from fedssl.data.base import Dataset, Samples
from fedssl.methods.base import ServerState
from fedssl.metrics.by_client import by_client
from fedssl.metrics.reliability import reliability
from fedssl.partition.split import Split
from fedssl.runtime import autocast

Scores = dict[str, float]


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
        found = Evaluation(test=self.task.score(calibrated, self.dataset.test.y))
        if calibrated is not logits:
            found.test["uncalibrated_ece"] = self.task.score(logits, self.dataset.test.y)["ece"]
        if len(self.pool):
            held = self._logits(server, self.dataset.train, self.pool)
            found.validation = self.task.score(self._calibrated(held, server), self.dataset.train.y[self.pool])
        columns = by_client(calibrated, self.dataset.test.y, self.split.test_index, self.split.test_offsets)
        for client_id in range(self.split.num_clients):
            found.clients[client_id] = {name: float(values[client_id]) for name, values in columns.items()}
        return found

    def reliability(self, server: ServerState) -> dict[str, Any]:
        """Give the bins of the reliability diagram on test samples, before and after calibration."""
        logits = self._logits(server, self.dataset.test, np.arange(len(self.dataset.test)))
        calibrated = self._calibrated(logits, server)
        y = self.dataset.test.y
        return {
            "uncalibrated": reliability(logits, y),
            "calibrated": None if calibrated is logits else reliability(calibrated, y),
        }

    def _calibrated(self, logits: NDArray[np.float32], server: ServerState) -> NDArray[np.float32]:
        given = torch.from_numpy(logits)
        made = self.hook.apply(given, {name: tensor.cpu() for name, tensor in server.extra.items()})
        return logits if made is given else made.numpy()

    def _logits(self, server: ServerState, samples: Samples, index: NDArray[np.int64]) -> NDArray[np.float32]:
        self.model.load_state_dict(server.model)
        size = self.experiment.evaluation.batch_size
        parts = (
            normalise(
                torch.from_numpy(samples.x[index[i : i + size]]).to(self.device), self.dataset.mean, self.dataset.std
            )
            for i in range(0, len(index), size)
        )
        with autocast(self.experiment.precision, self.device):
            return self.task.predict(self.model, parts)
