"""FedAvg and FixMatch rounds as a bare PyTorch loop: no messages, no guards, no journal. Prints one line of JSON.

Usage: python benchmarks/bare_loop.py ROUNDS KEY=VALUE ...
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
import torch
from torch.nn import functional

from clients.local_data import LocalData
from fedssl.assembly import initial_model
from fedssl.config import Experiment
from fedssl.data.batches import batches
from fedssl.data.views.client_data import ClientData
from fedssl.rng import Rng
from simulations.compose import compose_experiment


def train(model: torch.nn.Module, data: ClientData, options: dict[str, float], lr: float, rng: Rng) -> int:
    """Take one client's steps; give its weight."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
    size = int(options["batch_size"])
    semi = "ratio" in options
    pool = np.sort(np.concatenate([data.labelled, data.unlabelled])) if semi else data.labelled
    steps = math.ceil(len(pool) / (size * int(options.get("ratio", 1))))
    order = rng.numpy("order")
    labelled = batches(data.labelled, size, steps, order)
    unlabelled = batches(pool, size * int(options["ratio"]), steps, order) if semi else iter([])
    for i in range(steps):
        index = next(labelled)
        if not semi:
            loss = functional.cross_entropy(model(data.weak(index, i)).logits, data.labels(index))
        else:
            other = next(unlabelled)
            views = torch.cat([data.weak(index, i), data.weak(other, i), data.strong(other, i)])
            logits = model(views).logits
            weak, strong = logits[len(index) :].chunk(2)
            confidence, label = weak.detach().softmax(1).max(1)
            loss_ulb = functional.cross_entropy(strong, label, reduction="none")
            loss = (loss_ulb * (confidence >= options["threshold"])).mean()
            if len(index):
                loss = loss + functional.cross_entropy(logits[: len(index)], data.labels(index))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return len(pool)


def run(experiment: Experiment, rounds: int) -> list[float]:
    """Give the seconds of each round."""
    torch.set_num_threads(1)
    local = LocalData(experiment, torch.device("cpu"))
    model = initial_model(experiment, local.dataset, torch.device("cpu"))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seconds = []
    for round_ in range(1, rounds + 1):
        began = time.perf_counter()
        answers = []
        for client in range(experiment.clients):
            model.load_state_dict(state)
            rng = Rng(experiment.seed, round_, client)
            weight = train(model, local.client(client), experiment.method, experiment.method["lr"], rng)
            answers.append((weight, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        total = sum(weight for weight, _ in answers)
        for name, tensor in state.items():
            mean = sum(answer[name] * (weight / total) for weight, answer in answers)
            state[name] = mean.to(tensor.dtype)  # type: ignore[union-attr]
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    found = run(compose_experiment(sys.argv[2:]), int(sys.argv[1]))[2:]
    print(json.dumps({"round": sum(found) / len(found)}))
