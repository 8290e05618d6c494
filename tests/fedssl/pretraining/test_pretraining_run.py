from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedssl.assembly import initial_model, load_weights
from fedssl.config import ConfigError, from_dict
from fedssl.data.base import SOURCES
from fedssl.data.cache import open_dataset
from fedssl.files import sha256_of
from fedssl.pretraining.learner import Learner
from fedssl.pretraining.plan import plan
from fedssl.pretraining.run import checkpoint_of, description_of, fix_weights, pretrain, threads
from fedssl.pretraining.scores import all_scores, neighbour_accuracy
from fedssl.pretraining.settings import Pretraining
from fedssl.progress import listening

MODEL = {"name": "resnet", "width": 2, "norm": "batch", "blocks": 1}
SMALL = {"epochs": 3, "batch_size": 600, "score_every": 0, "threads": 1}


def experiment(**fields):
    values = {
        "data": {"name": "digits"},
        "model": MODEL,
        "partition": {"name": "iid"},
        "labels": {"name": "client_rate"},
        "clients": 3,
    }
    return from_dict({**values, **fields})


def silent(record):
    pass


class Stopped(Exception):
    pass


def stop_after(epoch: int):
    def watch(record):
        if record["epoch"] == epoch:
            raise Stopped

    return watch


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_training_ends_with_the_bits_of_one_never_stopped(tmp_path, precision):
    todo = plan(experiment(precision=precision), Pretraining(**SMALL))
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    pretrain(todo, whole, silent)
    for epoch in (1, 2):
        with pytest.raises(Stopped):
            pretrain(todo, parts, stop_after(epoch))
        assert not parts.exists()
        assert checkpoint_of(parts).is_file()
    described = pretrain(todo, parts, silent)
    assert parts.read_bytes() == whole.read_bytes()
    assert not checkpoint_of(parts).exists()
    assert [record["epoch"] for record in described["history"]] == [1, 2, 3]


def test_what_is_written_is_the_backbone_and_how_it_came_about(tmp_path):
    out = tmp_path / "w.safetensors"
    todo = plan(experiment(seed=4), Pretraining(**{**SMALL, "score_every": 1, "loss": "dcl"}))
    seen = []
    described = pretrain(todo, out, seen.append)
    assert json.loads(description_of(out).read_text()) == described
    assert described["sha256"] == sha256_of(out)
    assert described["data"]["images"] == len(todo.dataset.train)
    assert described["settings"]["loss"] == "dcl"
    assert 0.2 < described["scores"]["knn_accuracy"] <= 1
    assert 0.2 < described["scores"]["linear_accuracy"] <= 1
    assert 1 <= described["scores"]["rank"] <= 16
    assert ["knn_accuracy" in record for record in seen] == [True, True, False]
    assert all(name.startswith("backbone.") for name in load_file(out))


def test_networks_that_cannot_begin_with_the_weights_are_refused(monkeypatch):
    monkeypatch.setattr("fedssl.pretraining.plan.open_dataset", lambda _: pytest.fail("decoded"))
    with pytest.raises(ConfigError, match=r"^model='lenet': must be one that can begin with weights: resnet, resnet18"):
        plan(experiment(model={"name": "lenet"}), Pretraining())


def test_training_makes_neighbours_better(tmp_path):
    settings = Pretraining(epochs=6, batch_size=128, score_every=0, threads=1)
    todo = plan(experiment(model={**MODEL, "width": 4}), settings)
    described = pretrain(todo, tmp_path / "w.safetensors", silent)
    losses = [record["loss"] for record in described["history"]]
    assert losses[-1] < losses[0] - 0.1
    assert described["scores"]["knn_accuracy"] > neighbour_accuracy(Learner(todo).model, todo)


def test_images_are_those_the_clients_hold_or_those_without_label():
    fields = {"validation": 0.2, "labels": {"name": "client_rate", "rate": 0.25}}
    index = {
        images: plan(experiment(**fields), Pretraining(images=images)).index
        for images in ("all", "federated_pool", "unlabelled")
    }
    count = len(index["all"])
    assert len(index["federated_pool"]) == pytest.approx(0.8 * count, abs=2)
    assert len(index["unlabelled"]) == pytest.approx(0.6 * count, abs=20)
    assert np.isin(index["unlabelled"], index["federated_pool"]).all()
    assert (np.diff(index["federated_pool"]) > 0).all()


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    out = tmp_path / "w.safetensors"
    with pytest.raises(Stopped):
        pretrain(plan(experiment(), Pretraining(**SMALL)), out, stop_after(1))
    other = plan(experiment(), Pretraining(**{**SMALL, "lr": 0.01}))
    with pytest.raises(ConfigError, match="of other data or options"):
        pretrain(other, out, silent)
    checkpoint_of(out).write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match="a checkpoint that can be read"):
        pretrain(other, out, silent)


def test_a_loss_that_diverges_is_one_clear_error(tmp_path):
    todo = plan(experiment(), Pretraining(**{**SMALL, "lr": 1e30}))
    with pytest.raises(ConfigError, match="small enough: the loss of epoch"):
        pretrain(todo, tmp_path / "w.safetensors", silent)


@pytest.mark.slow
def test_auto_trains_once_and_then_takes_the_cached_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    wanted = experiment(model={**MODEL, "head": "cosine", "weights": "auto", "pretrain_epochs": 1})
    told = []
    fixed = fix_weights(wanted, told.append, silent)
    assert len(told) == 1
    assert "without labels, 1 epochs" in told[0]
    assert fix_weights(wanted, told.append, silent) == fixed
    linear = dataclasses.replace(wanted, model={**wanted.model, "head": "linear"})
    assert fix_weights(linear, told.append, silent).model["weights"] == fixed.model["weights"]
    assert len(told) == 1
    assert fix_weights(dataclasses.replace(wanted, seed=1), told.append, silent) != fixed
    assert len(told) == 2
    path = fixed.model["weights"]
    assert path.startswith(str(tmp_path / "weights-"))
    assert fixed.model["weights_sha256"] == sha256_of(path)
    dataset = open_dataset(SOURCES.create(fixed.data))
    model = initial_model(fixed, dataset, torch.device("cpu"))
    load_weights(fixed, model)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in load_file(path).items())


def test_weights_that_are_given_are_fixed_by_their_hash(tmp_path, monkeypatch):
    assert fix_weights(experiment(), pytest.fail, silent) == experiment()
    out = tmp_path / "w.safetensors"
    pretrain(plan(experiment(), Pretraining(**{**SMALL, "epochs": 1})), out, silent)
    monkeypatch.chdir(tmp_path)
    fixed = fix_weights(experiment(model={**MODEL, "weights": "w.safetensors"}), pytest.fail, silent)
    assert fixed.model["weights"] == str(out)
    assert fixed.model["weights_sha256"] == sha256_of(out)
    with out.open("ab") as file:
        file.write(b" ")
    # The changed file is refused where it is read; the hash of the run's begin stays.
    assert fix_weights(fixed, pytest.fail, silent) == fixed


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_scoring_reports_how_far_it_is():
    todo = plan(experiment(), Pretraining(**SMALL))
    told = []
    with listening(lambda *words: told.append(words)):
        all_scores(Learner(todo).model, todo)
    total = len(todo.dataset.train) + len(todo.dataset.test)
    first, last = (
        [words for words in told if words[0] == stage] for stage in dict.fromkeys(words[0] for words in told)
    )
    assert [words[2] for words in first] == [total] * len(first)
    done = [words[1] for words in first]
    assert done == sorted(set(done))
    assert (done[0], done[-1], len(done)) == (0, total, 5)
    assert last == [("fitting a linear classifier", 0, 1), ("fitting a linear classifier", 1, 1)]
