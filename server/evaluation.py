"""Scores of the global model from one pass over the test samples, for all and for each client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.assembly import Components
from fedssl.config import Experiment
from fedssl.data.arrays import first_of_each
from fedssl.data.base import Dataset, Samples
from fedssl.diagnostics import open_world
from fedssl.federation import ServerState
from fedssl.metrics.reliability import reliability
from fedssl.models.base import Outputs
from fedssl.partition.split import Split
from fedssl.tasks.base import Answers, inputs

Scores = dict[str, float]
_MAX_POINTS = 1000


@dataclass
class RoundScores:
    """Scores of one round: on test and validation samples, and by client id."""

    test: Scores = field(default_factory=dict)
    validation: Scores = field(default_factory=dict)
    clients: dict[int, Scores] = field(default_factory=dict)


class Scorer:
    """Scores a server state with data that the server has, as in a simulation."""

    def __init__(
        self, experiment: Experiment, dataset: Dataset, split: Split, parts: Components, model: torch.nn.Module
    ) -> None:
        self.experiment = experiment
        self.dataset = dataset
        self.split = split
        self.hook = parts.calibration
        self.task = parts.task
        self.model = model
        self.device = next(model.parameters()).device
        self.pool = np.unique(split.validation_index)

    def __call__(self, server: ServerState) -> RoundScores:
        """Score the calibrated global model."""
        every = np.arange(len(self.dataset.test))
        answers = self._answers(server, self.dataset.test, every)
        calibrated = self._calibrated(answers, server)
        truth, kinds = self.task.truth(self.dataset, self.dataset.test, every), self.split.kinds
        found = RoundScores(test=self.task.score(calibrated, truth, kinds))
        if calibrated is not answers:
            found.test["uncalibrated_ece"] = self.task.score(answers, truth, kinds)["ece"]
        if len(self.pool):
            found.validation = self._scored(server, self.pool)
        if self.experiment.evaluation.transductive:
            found.test |= {f"transductive_{name}": value for name, value in self._transductive(server).items()}
        columns = self.task.by_client(calibrated, truth, self.split.test_index, self.split.test_offsets, kinds)
        for client_id in range(self.split.num_clients):
            found.clients[client_id] = {name: float(values[client_id]) for name, values in columns.items()}
        return found

    def _transductive(self, server: ServerState) -> Scores:
        """Score the samples that clients trained on without labels, where anybody knows their class."""
        return self._scored(server, np.unique(self.split.train_index[self.split.label == -1]))

    def _scored(self, server: ServerState, index: NDArray[np.int64]) -> Scores:
        """Score the calibrated global model on samples of the training split."""
        answers = self._calibrated(self._answers(server, self.dataset.train, index), server)
        return self.task.score(answers, self.task.truth(self.dataset, self.dataset.train, index), self.split.kinds)

    def reliability(self, server: ServerState) -> dict[str, Any]:
        """Give the bins of the reliability diagram on test samples, before and after calibration.

        Empty for a task without logits.
        """
        if not self.task.has_logits:
            return {}
        logits = self._answers(server, self.dataset.test, np.arange(len(self.dataset.test)))
        calibrated = self._calibrated(logits, server)
        y = self.dataset.test.y
        return {
            "uncalibrated": reliability(self.task.by_class(logits, y), y),
            "calibrated": None if calibrated is logits else reliability(self.task.by_class(calibrated, y), y),
        }

    def open_world(self, server: ServerState) -> dict[str, Any]:
        """Give the open-world report's numbers on test samples: see `fedssl.diagnostics.open_world`."""
        test, names = self.dataset.test, self.dataset.class_names
        logits = self._calibrated(self._answers(server, test, np.arange(len(test))), server)
        found = open_world.describe(logits.argmax(axis=1), test.y, names, self.split.kinds)
        shown = first_of_each(test.y, max(1, _MAX_POINTS // len(names)))
        if len(shown):
            features, centroids = self._features(server, test, shown), self.hook.directions(server.extra)
            fits = centroids is not None and centroids.shape == (len(names), features.shape[1])
            rows = centroids.detach().cpu().double().numpy() if centroids is not None and fits else None
            found |= open_world.picture(features, test.y[shown], rows, found["named"])
        return found

    def _calibrated(self, answers: Answers, server: ServerState) -> Answers:
        if not self.task.has_logits:
            return answers
        given = torch.from_numpy(answers)
        made = self.hook.apply(given, {name: tensor.cpu() for name, tensor in server.extra.items()})
        return answers if made is given else made.numpy()

    def _answers(self, server: ServerState, samples: Samples, index: NDArray[np.int64]) -> Answers:
        self.model.load_state_dict(server.model)
        return self.task.predict(self.model, self._batches(samples, index))

    def _features(self, server: ServerState, samples: Samples, index: NDArray[np.int64]) -> NDArray[np.float64]:
        self.model.load_state_dict(server.model)
        found: list[NDArray[np.float64]] = []

        def keep(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], outputs: Outputs) -> None:
            del module, inputs
            found.append(outputs.features.double().cpu().numpy())

        handle = self.model.register_forward_hook(keep)
        try:
            self.task.predict(self.model, self._batches(samples, index))
        finally:
            handle.remove()
        return np.concatenate(found)

    def _batches(self, samples: Samples, index: NDArray[np.int64]) -> Iterator[torch.Tensor]:
        return inputs(self.dataset, samples, index, self.experiment.evaluation.batch_size, self.device)
