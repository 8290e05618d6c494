"""A user's method that overrides a hook under its old name still works, for one version."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest

from fedssl.config import option
from fedssl.methods.base import RENAMED, Method
from fedssl.methods.fedavg import FedAvg


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
@pytest.mark.parametrize("base", [Method, FedAvg])
def test_a_hook_under_its_old_name_is_called(old: str, new: str, base: type[Method]):
    with pytest.warns(FutureWarning, match=f"^Mine.{old}: the hook is called {new} now$") as told:
        mine = dataclass(type("Mine", (base,), {"train_client": None, old: lambda self, *_: "mine"}))()
    assert len(told) == 1
    assert getattr(mine, new)(1, 2, 3) == "mine"
    assert getattr(Method, new) is not getattr(type(mine), new)


def test_a_hook_under_both_names_is_the_new_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = type("Mine", (FedAvg,), {"sweeps": lambda self: 1, "evaluation_visits": lambda self: 2})()
    assert mine.evaluation_visits() == 2


@pytest.mark.parametrize("base", [Method, FedAvg])
def test_a_hook_under_its_old_name_reaches_that_of_its_base(base: type[Method]):
    class Middle(base):  # type: ignore[misc, valid-type]
        def evaluation_visits(self) -> int:
            return 3

    with pytest.warns(FutureWarning):

        class Mine(Middle):
            def sweeps(self) -> int:
                return super().sweeps() + 1

            def trainers(self, num_clients: int) -> int:
                return super().trainers(num_clients) - 1

    mine = dataclass(type("Whole", (Mine,), {"train_client": None}))()
    assert mine.evaluation_visits() == 4
    assert mine.num_training_clients(10) == 9


def test_an_option_may_have_an_old_name():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        @dataclass
        class Mine(FedAvg):
            sweeps: int = option(3, "how often")

    assert (Mine().sweeps, Mine().evaluation_visits()) == (3, 0)
