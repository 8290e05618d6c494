"""A pre-training from plan to file, and the one that a run with `model.weights=auto` begins with."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedssl.config import ConfigError, Experiment, sha256
from fedssl.data.cache import cache_directory
from fedssl.files import expanded, sha256_of, write_atomically
from fedssl.models.weights import AUTO
from fedssl.pretraining.learner import Learner
from fedssl.pretraining.plan import Plan, plan
from fedssl.pretraining.scores import all_scores, neighbour_accuracy
from fedssl.pretraining.settings import Pretraining

_THREADS = 2
"""Of the pre-training that a run begins with: a fixed number, so that its bits do not depend on the cores."""

_SHORT = Pretraining(
    batch_size=64, temperature=0.2, area=0.5, jitter=0.8, images="federated_pool", score_every=0, threads=_THREADS
)
"""For few epochs on few images: many small steps; chosen on `fashion_small` by neighbours within its training split."""

OnEpoch = Callable[[dict[str, float]], None]
"""Told of each epoch: epoch, loss, seconds, and knn_accuracy where it was scored."""


def checkpoint_of(out: Path) -> Path:
    """Give where a pre-training keeps its state while it goes on."""
    return out.with_name(f"{out.name}.checkpoint")


def description_of(out: Path) -> Path:
    """Give where the JSON beside a weights file stands."""
    return out.with_name(f"{out.name}.json")


def pretrain(todo: Plan, out: Path, watcher: OnEpoch) -> dict[str, Any]:
    """Train or go on from the checkpoint beside `out`; write weights and description, and give the latter.

    The same plan gives the same bits, stopped or not, with the same number of threads. Raises ConfigError, OSError.
    """
    with threads(todo.settings.threads) as count:
        learner = Learner(todo)
        checkpoint = checkpoint_of(out)
        history = learner.restore(checkpoint) if checkpoint.exists() else []
        while learner.epochs_done < todo.settings.epochs:
            history.append(_epoch(learner))
            learner.save(checkpoint, history)
            watcher(history[-1])
        scores = all_scores(learner.model, todo)
    described = _write(learner, out, {"scores": scores, "threads": count, "history": history})
    checkpoint.unlink(missing_ok=True)
    return described


def _epoch(learner: Learner) -> dict[str, float]:
    began = time.perf_counter()
    loss = learner.epoch()
    every, done = learner.plan.settings.score_every, learner.epochs_done
    record = {"epoch": float(done), "loss": loss, "seconds": round(time.perf_counter() - began, 3)}
    if every and done % every == 0 and done < learner.plan.settings.epochs:
        record["knn_accuracy"] = neighbour_accuracy(learner.model, learner.plan)
    return record


def _write(learner: Learner, out: Path, results: dict[str, Any]) -> dict[str, Any]:
    from safetensors.torch import save

    todo = learner.plan
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in learner.backbone().items()}
    write_atomically(out, save(tensors, {"identity": todo.identity()}))
    described = {
        "sha256": sha256_of(out),
        "data": {"name": todo.dataset.name, "key": todo.dataset.key, "images": len(todo.index)},
        "model": todo.model,
        "settings": dataclasses.asdict(todo.settings),
        "seed": todo.seed,
        "precision": todo.precision,
        "torch": torch.__version__,
        **results,
    }
    write_atomically(description_of(out), (json.dumps(described, indent=1) + "\n").encode())
    return described


@contextmanager
def threads(count: int) -> Iterator[int]:
    """Let torch compute with `count` threads for a while; 0 = one a core this process may use."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(count or cores)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def fix_weights(experiment: Experiment, begin: Callable[[str], None], watcher: OnEpoch) -> Experiment:
    """Give the experiment with the path and hash of its starting weights, pre-trained now for `model.weights=auto`.

    `begin` is told, in one line, of a pre-training that is not in the cache. Raises ConfigError, OSError.
    """
    given = experiment.model.get("weights", "")
    if not given:
        return experiment
    path = _cached(experiment, begin, watcher) if given == AUTO else Path(os.path.abspath(expanded(given)))
    known = experiment.model.get("weights_sha256") or (sha256_of(path) if path.is_file() else "")
    return replace(experiment, model={**experiment.model, "weights": str(path), "weights_sha256": known})


def _cached(experiment: Experiment, begin: Callable[[str], None], watcher: OnEpoch) -> Path:
    epochs = int(experiment.model["pretrain_epochs"])
    todo = plan(experiment, replace(_SHORT, epochs=epochs))
    path = cache_directory() / f"weights-{sha256(todo.identity())}.safetensors"
    if not path.is_file():
        begin(f"pre-training on {len(todo.index)} images without labels, {epochs} epochs; kept in {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pretrain(todo, path, watcher)
        except OSError as error:
            allowed = f"a folder that can be written to ({error.strerror or error})"
            raise ConfigError("FEDSSL_CACHE", str(path.parent), allowed) from None
    return path
