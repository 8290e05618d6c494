"""Tests of fedssl.registry."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import pytest

from fedssl.config import ConfigError, option
from fedssl.registry import Registry


@dataclass
class Choice:
    rate: float = option(0.5, "a share", low=0, high=1)
    sizes: list[float] = option([1.0], "some sizes", above=0)
    made: bool = field(default=False, init=False)


@pytest.fixture
def registry() -> Registry[Choice]:
    made: Registry[Choice] = Registry("fruit", "fedssl.aggregation")
    made.register("apple")(Choice)
    return made


def test_a_choice_is_made_from_its_name_and_options(registry: Registry[Choice]):
    assert asdict(registry.create({"name": "apple", "rate": 0.25})) == {"rate": 0.25, "sizes": [1.0], "made": False}
    assert registry.names() == ["apple"]
    assert registry.get("apple") is Choice


def test_a_whole_number_for_a_number_becomes_one(registry: Registry[Choice]):
    made = registry.create({"name": "apple", "rate": 1, "sizes": [2, 3]})
    assert type(made.rate) is float
    assert [type(size) for size in made.sizes] == [float, float]


def test_two_of_one_name_are_refused(registry: Registry[Choice]):
    with pytest.raises(ValueError, match="apple"):
        registry.register("apple")(Choice)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"name": "aple"}, "fruit='aple': must be one of apple; did you mean apple?"),
        ({"name": 3}, "fruit=3: must be one of apple"),
        ({}, "fruit=None: must be one of apple"),
        ({"name": "apple", "rat": 1.0}, "fruit.rat=1.0: must be an option of fruit=apple: .*; did you mean rate?"),
        ({"name": "apple", "rate": 2}, "fruit.rate=2.0: must be a number >= 0 and <= 1"),
        ({"name": "apple", "sizes": [1.0, 0]}, "fruit.sizes=0.0: must be a list, each a number > 0|fruit.sizes=0.0"),
        ({"name": "apple", "sizes": 1.0}, "fruit.sizes=1.0: must be a list, each a number > 0"),
        ({"name": "apple", "made": True}, "fruit.made=True: must be an option of"),
    ],
)
def test_what_cannot_be_used_is_named(registry: Registry[Choice], choice: dict[str, object], text: str):
    with pytest.raises(ConfigError, match=text):
        registry.create(choice)


def test_an_import_error_in_a_module_is_not_swallowed():
    with pytest.raises(ModuleNotFoundError):
        Registry("fruit", "fedssl.no_such_package").names()


def test_a_failed_import_fails_again_and_leaves_no_half_list(tmp_path, monkeypatch):
    package = tmp_path / "fruit_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rotten.py").write_text("raise RuntimeError('worm')")
    monkeypatch.syspath_prepend(tmp_path)
    made: Registry[Choice] = Registry("fruit", "fruit_package")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="worm"):
            made.names()
    (package / "rotten.py").write_text("sound = 1")
    assert made.names() == []
