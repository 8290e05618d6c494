"""A detector on labelled scenes in a bare PyTorch loop: no rounds, no guards, no journal. Prints one line of JSON.

Usage: python benchmarks/bare_detector.py ROUNDS KEY=VALUE ...
"""

from __future__ import annotations

import json
import sys
import time

import torch

from clients.local_data import LocalData
from fedssl.assembly import initial_model
from fedssl.config import Experiment
from fedssl.losses.detection import LossSettings
from fedssl.losses.labelled import scene_loss
from fedssl.rng import Rng
from simulations.compose import compose_experiment


def run(experiment: Experiment, rounds: int) -> list[float]:
    """Give the seconds of each pass over the server's labelled scenes."""
    torch.set_num_threads(1)
    local = LocalData(experiment, torch.device("cpu"))
    model = initial_model(experiment, local.dataset, torch.device("cpu"))
    method, data = experiment.method, local.server()
    settings = LossSettings(box=method["box_weight"], class_=method["class_weight"], objectness=method["object_weight"])
    pace = {"lr": method["lr"], "momentum": method["momentum"], "weight_decay": method["weight_decay"]}
    optimizer = torch.optim.SGD(model.parameters(), **pace, fused=True)
    model.train()
    seconds = []
    for round_ in range(1, rounds + 1):
        began = time.perf_counter()
        rng = Rng(experiment.seed, round_)
        order = rng.numpy("order").permutation(data.labelled)
        for i in range(0, len(order), method["batch_size"]):
            loss = scene_loss(model, data, order[i : i + method["batch_size"]], rng.key("views") + i, settings)[1]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), method["clip"])
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    found = run(compose_experiment(sys.argv[2:]), int(sys.argv[1]))[1:]
    print(json.dumps({"round": sum(found) / len(found)}))
