"""Tests of fedssl.config."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedssl.config import ConfigError, Experiment, from_dict, from_json, to_json


def test_the_text_of_an_experiment_gives_it_back():
    made = from_dict({"rounds": 7, "method": {"name": "fedavg", "lr": 0.5}, "engine": {"name": "inline"}})
    assert from_json(to_json(made)) == made
    assert json.loads(to_json(made))["rounds"] == 7


def test_an_empty_text_is_the_default_experiment():
    assert from_json(" \n") == Experiment()


def test_equal_experiments_have_equal_text_whatever_the_number_was_written_as():
    whole, number = from_dict({"deadline": 60, "participation": 1}), from_dict({"deadline": 60.0, "participation": 1.0})
    assert to_json(whole) == to_json(number)
    assert type(whole.deadline) is float


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rouns": 3}, "rouns=3: must be one of method, data, .* did you mean rounds?"),
        ({"rounds": 0}, "rounds=0: must be a whole number >= 1"),
        ({"rounds": 2.0}, "rounds=2.0: must be a whole number >= 1"),
        ({"rounds": True}, "rounds=True: must be a whole number"),
        ({"participation": 0}, "participation=0.0: must be a number > 0 and <= 1"),
        ({"participation": True}, "participation=True"),
        ({"deadline": float("nan")}, "deadline=nan: must be a number > 0"),
        ({"deadline": 10**400}, "deadline=1000+"),
        ({"precision": "fp23"}, "precision='fp23': must be one of fp32, bf16, auto; did you mean fp32?"),
        ({"engine": {"wrkers": 1}}, "engine.wrkers=1: .* did you mean workers?"),
        ({"engine": "ray"}, "engine='ray': must be an object with name, workers, address"),
        ({"method": "fedavg"}, "method='fedavg': must be a choice with a name"),
        ([], r"experiment=\[\]: must be an object"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(values: Any, text: str):
    with pytest.raises(ConfigError, match=text) as caught:
        from_dict(values)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_json_is_refused_with_its_place():
    with pytest.raises(ConfigError, match=r"experiment='\{': must be JSON \(.* at character 1\)"):
        from_json("{")


@pytest.mark.parametrize("given", [{"workers": 3}, {"address": "auto"}])
def test_workers_without_ray_are_refused(given: dict[str, object]):
    with pytest.raises(ConfigError, match=r"engine\.start='never': must be auto or at_once"):
        from_dict({"engine": {"start": "never", **given}})
    assert from_dict({"engine": {"start": "never", "workers": 1}}).engine.workers == 1
