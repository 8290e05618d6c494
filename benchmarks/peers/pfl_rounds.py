"""FedAvg rounds of LeNet in pfl 0.6, one process. Prints one line of JSON.

Usage: PYTHONPATH=. PFL_ENVIRONMENT/bin/python benchmarks/peers/pfl_rounds.py ROUNDS FILE.npz [--clients 10]

Same network, batches, rate and numbers of steps as `plain_fedavg.py`; `FILE.npz` holds x_train and y_train.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from fedssl.models.networks.lenet import LeNet

RATE, BATCH = 0.03, 10


class Network(LeNet):
    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.train()
        return torch.nn.functional.cross_entropy(self(x).logits, y)

    @torch.no_grad()
    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        self.eval()
        return {"loss": Weighted(float(torch.nn.functional.cross_entropy(self(x).logits, y)), 1)}


class Clock(TrainingProcessCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_central_iteration(self, *args: Any, **kwargs: Any) -> tuple[bool, Metrics]:
        del args, kwargs
        self.ends.append(time.perf_counter())
        return False, Metrics()


def main(rounds: int, file: str, clients: int) -> None:
    torch.set_num_threads(1)
    with np.load(file) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    parts = np.array_split(np.arange(len(x)), clients)
    images = torch.from_numpy(x).float().div(255).unsqueeze(1).contiguous(memory_format=torch.channels_last)
    users = {str(k): Dataset([images[part], torch.from_numpy(y[part])], user_id=str(k)) for k, part in enumerate(parts)}
    sampler = get_user_sampler("minimize_reuse", list(users))
    network = Network((*x.shape[1:], 1), 10).to(memory_format=torch.channels_last)
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))
    params = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH)
    run = NNAlgorithmParams(
        central_num_iterations=rounds, evaluation_frequency=10**6, train_cohort_size=clients, val_cohort_size=0
    )
    clock = Clock()
    backend = SimulatedBackend(FederatedDataset(users.__getitem__, sampler), val_data=None)
    FederatedAveraging().run(run, backend, model, params, callbacks=[clock])
    later = clock.ends[1:]
    print(json.dumps({"round": (later[-1] - later[0]) / (len(later) - 1)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int)
    parser.add_argument("file")
    parser.add_argument("--clients", type=int, default=10)
    given = parser.parse_args()
    main(given.rounds, given.file, given.clients)
