"""Tests of fedssl.assembly: what does not fit together is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import toys

from clients.local_data import LocalData
from fedssl.assembly import assemble, split_of
from fedssl.config import ConfigError, Experiment
from fedssl.data.base import SOURCES
from fedssl.data.cache import open_dataset
from fedssl.methods.base import METHODS, check_task
from simulations.compose import check


def serves(name: str) -> bool:
    return "classification" in METHODS.get(name).tasks


def test_a_method_that_works_with_one_personalization_refuses_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(METHODS.get("fixmatch"), "personalizations", ("mixture",))
    assert assemble(toys.experiment(method={"name": "fixmatch"}, personalization={"name": "mixture"}))
    with pytest.raises(ConfigError, match="personalization='none': must be one of mixture with method=fixmatch"):
        assemble(toys.experiment(method={"name": "fixmatch"}, personalization={"name": "none"}))


def test_a_method_that_does_not_serve_the_task_of_the_data_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(METHODS.get("fixmatch"), "tasks", ("counting",))
    chosen = toys.experiment(method={"name": "fixmatch"})
    others = ", ".join(name for name in METHODS.names() if name != "fixmatch" and serves(name))
    text = f"method='fixmatch': must be one that serves the task classification of data=digits: {others}$"
    with pytest.raises(ConfigError, match=text):
        assemble(chosen)
    with pytest.raises(ConfigError, match=text):
        check(chosen)
    monkeypatch.setattr(SOURCES.get("digits"), "task", "counting")
    check_task("fixmatch", "digits")
    with pytest.raises(ConfigError, match=r"method='fedavg'.* task counting of data=digits: fixmatch$"):
        check_task("fedavg", "digits")


def test_a_split_is_fixed_by_seed_and_share_of_validation():
    chosen = toys.experiment()
    dataset = open_dataset(SOURCES.create(chosen.data))
    found = split_of(chosen, dataset)
    assert found.num_clients == 4
    assert found.sha256 == split_of(replace(chosen, rounds=7), dataset).sha256
    others = [replace(chosen, seed=1), replace(chosen, validation=0.2), replace(chosen, clients=5)]
    assert len({found.sha256, *(split_of(other, dataset).sha256 for other in others)}) == 4


@pytest.mark.parametrize("asks", ["neither", "method", "partition"])
def test_the_open_world_task_is_taken_when_method_or_partition_ask_for_it(asks: str, monkeypatch: pytest.MonkeyPatch):
    if asks == "method":
        monkeypatch.setattr(METHODS.get("fixmatch"), "open_world", True)
    partition = {"name": "open_world" if asks == "partition" else "iid"}
    chosen = toys.experiment(method={"name": "fixmatch"}, partition=partition)
    expected = "classification" if asks == "neither" else "open_world"
    assert assemble(chosen).task.name == expected


def test_a_task_that_is_not_classification_is_never_open_world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(METHODS.get("fixmatch"), "tasks", ("other",))
    monkeypatch.setattr(SOURCES.get("digits"), "task", "other")
    with pytest.raises(ConfigError, match=r"^task='other'"):
        assemble(toys.experiment(method={"name": "fixmatch"}, partition={"name": "open_world"}))


def test_clients_are_told_the_kinds_of_the_split():
    chosen = toys.experiment(partition={"name": "open_world"}, labels={"name": "client_rate", "rate": 0.5})
    local = LocalData(chosen, torch.device("cpu"))
    # Ten classes and four clients: six seen, one that all hold, three groups.
    assert [local.client(client).kinds.tolist() for client in range(4)] == [[0] * 6 + [1] + [2] * 3] * 4
    data = local.client(0)
    assert set(local.dataset.train.y[data.labelled]) == set(range(6))
    assert set(local.dataset.train.y[data.unlabelled]) == {*range(6), 6, 7}


def detection(**fields: Any) -> Experiment:
    chosen = {"method": {"name": "ssfl"}, "data": {"name": "shapes_synthetic"}, "model": {"name": "detector"}}
    return toys.experiment(**chosen, **fields)


@pytest.mark.parametrize("calibration", ["temperature", "centroid"])
def test_a_task_without_logits_has_nothing_to_calibrate(calibration: str):
    text = f"^calibration='{calibration}': must be none: the task detection has no logits$"
    with pytest.raises(ConfigError, match=text):
        assemble(detection(calibration={"name": calibration}))
    assert assemble(detection()).calibration.name == "none"


@pytest.mark.parametrize(("method", "data"), [("semipfl", "imu_synthetic"), ("pfedhn", "digits")])
def test_a_method_without_a_global_model_has_nothing_to_calibrate(method: str, data: str):
    chosen = {"method": {"name": method}, "data": {"name": data}, "personalization": {"name": "method"}}
    with pytest.raises(ConfigError, match=f"^calibration='temperature': must be none with method={method}$"):
        assemble(toys.experiment(**chosen, calibration={"name": "temperature"}))
    assert assemble(toys.experiment(**chosen)).calibration.name == "none"
    assert assemble(toys.experiment(calibration={"name": "temperature"})).calibration.name == "temperature"


@pytest.mark.parametrize("hook", ["finetune", "mixture"])
def test_a_hook_that_trains_classifiers_needs_logits(hook: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(METHODS.get("ssfl"), "personalizations", ())
    text = f"^personalization='{hook}': must be one of local_head, local_norm, local_only, none: the task detection"
    with pytest.raises(ConfigError, match=text):
        assemble(detection(personalization={"name": hook}))
    for name in ("local_head", "local_norm", "local_only", "none"):
        assert assemble(detection(personalization={"name": name})).personalization.name == name
    assert assemble(toys.experiment(personalization={"name": hook})).personalization.name == hook
