"""A user's method that overrides a hook under its old name still works, for one version."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest

from fedssl.methods.base import RENAMED, Method
from fedssl.methods.fedavg import FedAvg


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
@pytest.mark.parametrize("base", [Method, FedAvg])
def test_a_hook_under_its_old_name_is_called(old: str, new: str, base: type[Method]):
    with pytest.deprecated_call(match=f"^Mine.{old}: the hook is called {new} now$") as told:
        mine = dataclass(type("Mine", (base,), {"train_client": None, old: lambda self, *_: "mine"}))()
    assert len(told) == 1
    assert getattr(mine, new)(1, 2, 3) == "mine"
    assert getattr(Method, new) is not getattr(type(mine), new)


def test_a_hook_under_both_names_is_the_new_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = type("Mine", (FedAvg,), {"sweeps": lambda self: 1, "evaluation_visits": lambda self: 2})()
    assert mine.evaluation_visits() == 2
