"""What is one choice's own stands with that choice: the layers above go by declarations, not by names."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedssl.calibration.base import CALIBRATIONS
from fedssl.data.base import SOURCES
from fedssl.methods.base import METHODS
from fedssl.models.base import MODELS
from fedssl.personalization.base import PERSONALIZATIONS
from fedssl.tasks.base import TASKS
from simulations.compose import REGISTRIES, path_keys

ROOT = Path(__file__).parents[1]
FOLDERS = ("server", "simulations", "fedssl/report")
NAMED = (METHODS, CALIBRATIONS, PERSONALIZATIONS, TASKS, MODELS, SOURCES)
ALLOWED = {
    ("simulations/compose.py", "fedossl"): "what `fedssl run` runs by default",
    ("server/strategy.py", "none"): "the choice of no personalization, which every build has",
    ("fedssl/report/tables.py", "detector"): "older runs without a score tell by nothing else that they found boxes",
    ("fedssl/report/users.py", "mixture"): "a figure's name",
    ("simulations/listing.py", "open_world"): "an attribute's name",
}


def literals(path: Path) -> Iterator[str]:
    """Yield the strings of a module, without its documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value


def test_no_layer_above_names_a_single_choice() -> None:
    names = {name for registry in NAMED for name in registry.names() if registry.get(name).__module__[:7] == "fedssl."}
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {(path.relative_to(ROOT).as_posix(), text) for path in files for text in literals(path) if text in names}
    assert found == set(ALLOWED)


def test_no_layer_above_names_an_option_of_a_single_method() -> None:
    methods = [cls for cls in METHODS.values() if cls.__module__.startswith("fedssl.")]
    options = {f"method.{item.name}" for cls in methods for item in dataclasses.fields(cls)}
    files = [path for folder in ("server", "simulations") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert [(path.name, text) for path in files for text in literals(path) if text in options] == []


@pytest.mark.parametrize("group", REGISTRIES)
def test_an_option_that_looks_like_a_path_is_declared_as_one(group: str) -> None:
    fields = {item.name for cls in REGISTRIES[group].values() for item in dataclasses.fields(cls)}
    assert {f"{group}.path" for name in fields if name == "path"} <= path_keys()


def test_paths_are_those_that_were_known() -> None:
    own = {"out", "resume", "method_file"}
    assert path_keys() == own | {"data.path", "model.weights", "method.warm_up_weights"}
