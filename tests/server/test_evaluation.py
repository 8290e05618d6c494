"""Tests of server.evaluation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import toys

from fedssl.config import Experiment
from fedssl.federation import ServerState
from server.app import ServerRun


def run_of(**fields: Any) -> tuple[Experiment, ServerRun]:
    chosen = toys.experiment(partition={"name": "dirichlet", "alpha": 0.3}, **fields)
    return chosen, toys.begun(chosen)


def test_a_clients_numbers_from_the_one_pass_are_those_of_scoring_it_alone():
    _, run = run_of()
    found = run.scorer(run.strategy.server)
    run.model.load_state_dict(run.strategy.server.model)
    for client_id in range(4):
        index = run.split.client(client_id).test
        x = torch.from_numpy(run.dataset.test.x[index])
        from fedssl.data.views.augment import normalise

        logits = run.parts.task.predict(run.model, [normalise(x, run.dataset.mean, run.dataset.std)])
        alone = run.parts.task.score(logits, run.dataset.test.y[index], run.split.kinds)
        for name, value in found.clients[client_id].items():
            assert value == pytest.approx(alone[name], abs=1e-6), (client_id, name)


def test_the_whole_test_set_is_scored_in_any_batch_size():
    _, one = run_of(evaluation={"batch_size": 7})
    _, other = run_of(evaluation={"batch_size": 10000})
    first, second = one.scorer(one.strategy.server), other.scorer(other.strategy.server)
    assert first.test == pytest.approx(second.test, abs=1e-6)
    assert first.validation == pytest.approx(second.validation, abs=1e-6)


def test_a_model_that_always_says_one_class_is_right_on_that_class_alone():
    _, run = run_of()
    model = {name: torch.zeros_like(tensor) for name, tensor in run.strategy.server.model.items()}
    model["head.bias"][3] = 10.0
    found = run.scorer(ServerState(model))
    share = float(np.mean(run.dataset.test.y == 3))
    assert found.test["accuracy"] == pytest.approx(share)
    loss = math.log(math.exp(10) + 9) - 10 * share
    assert found.test["loss"] == pytest.approx(loss, rel=1e-5)
    pool = np.unique(run.split.validation_index)
    assert found.validation["accuracy"] == pytest.approx(float(np.mean(run.dataset.train.y[pool] == 3)))


def test_the_reliability_bins_hold_every_test_sample():
    _, run = run_of()
    found = run.scorer.reliability(run.strategy.server)
    assert sum(found["uncalibrated"]["count"]) == len(run.dataset.test)
    assert found["calibrated"] is None


def test_without_a_validation_share_there_are_no_validation_scores():
    _, run = run_of(validation=0.0)
    assert run.scorer(run.strategy.server).validation == {}


def test_transductive_scores_are_those_of_the_unlabelled_training_samples():
    _, run = run_of(evaluation={"transductive": True})
    model = {name: torch.zeros_like(tensor) for name, tensor in run.strategy.server.model.items()}
    model["head.bias"][3] = 10.0
    found = run.scorer(ServerState(model)).test
    unlabelled = np.concatenate([run.split.client(client).unlabelled for client in range(run.split.num_clients)])
    share = float(np.mean(run.dataset.train.y[unlabelled] == 3))
    assert found["transductive_accuracy"] == pytest.approx(share)
    assert found["transductive_accuracy"] != found["accuracy"]
    assert not any(name.startswith("transductive") for name in run_of()[1].scorer(ServerState(model)).test)
