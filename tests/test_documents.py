"""What the documents say is tried: links, commands, the example method, the generated page."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import layouts
import numpy as np
import pytest

from fedssl.assembly import ALLOW_CODE
from fedssl.methods.base import METHODS
from simulations.cli import commands
from simulations.compose import compose_experiment, expand
from simulations.listing import group_of
from simulations.run import simulate

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def documented_commands() -> list[str]:
    found = [line for page in PAGES for text in blocks(page, "bash") for line in text.splitlines()]
    return sorted({line for line in found if line.startswith("fedssl ")})


def example_method() -> str:
    return next(text for text in blocks(ROOT / "README.md", "python") if "@register" in text)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documents name."""
    path = tmp_path_factory.mktemp("documents")
    (path / "my_method.py").write_text(example_method(), encoding="utf-8")
    x = np.random.default_rng(0).integers(0, 256, (300, 28, 28), dtype=np.uint8)
    y = np.arange(300) % 4
    y[100:250] = -1
    np.savez(path / "mine.npz", x_train=x, y_train=y)
    layouts.yolo(path / "FOLDER")
    return path


@pytest.fixture(autouse=True)
def own_methods(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the documents' method after each test: others go over all that is registered."""
    METHODS.load()
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))
    monkeypatch.setenv(ALLOW_CODE, "1")
    yield
    for name in [name for name in sys.modules if name.startswith("fedssl_method_")]:
        del sys.modules[name]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}"


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_understood(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    _, name, *words = shlex.split(line, comments=True)
    assert name in commands()
    if name == "list":
        assert not words or group_of(words[0].partition("=")[0])
    elif name in ("run", "split") and not any(word.startswith("resume=") for word in words):
        overrides = [word for word in words if word != "-m"]
        combinations = expand(overrides) if "-m" in words else [overrides]
        assert "-m" not in words or len(combinations) > 1
        for item in combinations:
            chosen = compose_experiment(item)
            assert all(f"{group}={getattr(chosen, group)['name']}" in item for group in ("method",) if group in line)


def test_some_commands_are_documented() -> None:
    assert {"run", "split", "report", "predict", "list"} <= {line.split()[1] for line in documented_commands()}


@pytest.mark.slow
def test_the_example_method_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    from simulations.run import simulate

    chosen = ["method_file=my_method.py", "method=entropy", "data=digits", "model=mlp", "clients=4", "rounds=2"]
    losses = {}
    for weight in (0.0, 1.0):
        made = simulate([*chosen, f"method.entropy_weight={weight}", "engine=inline", f"out=run{weight}"])
        assert made.summary["status"] == "done"
        losses[weight] = made.rounds["train.loss"].tolist()
    assert losses[0.0][-1] < losses[0.0][0]
    # An entropy is not negative, so it can only add to the first round's loss.
    assert losses[1.0][0] > losses[0.0][0]


def test_the_page_of_options_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    # A process of its own: other tests register methods here.
    code = "import sys; sys.path.insert(0, 'docs'); import make_configuration as m; print(m.page(), end='')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert written == done.stdout, f"run python docs/make_configuration.py {done.stderr}"


def test_run_config_hands_the_experiment_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    from fedssl.config import from_json
    from simulations.run import load_run

    monkeypatch.chdir(folder)
    text = script("run_config").run_config(["method=fixmatch", "data=digits", 'out=a "b"', "seed=3"])
    experiment = from_json(tomllib.loads(text)["experiment"])
    assert experiment.seed == 3
    assert experiment.out == str(folder / 'a "b"')
    (folder / 'a "b"' / "checkpoint" / "round-1").mkdir(parents=True)
    assert load_run(experiment.out, {}) == experiment


@pytest.mark.parametrize(
    ("word", "told"), [("rounds=x", "rounds='x'"), ("method_file=my_method.py", "method_file='my_")]
)
def test_run_config_refuses_in_one_line(word: str, told: str) -> None:
    command = [sys.executable, str(ROOT / "docs" / "run_config.py"), word]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"run_config: {told}")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_the_first_examples_visibly_learn(number: int, tmp_path: Path) -> None:
    lines = [line for text in blocks(ROOT / "README.md", "bash") for line in text.splitlines()]
    words = shlex.split([line for line in lines if line.startswith("fedssl run method=f")][number])
    result = simulate([*words[2:], "engine=inline", f"out={tmp_path / 'run'}"])
    assert result.summary["final"]["accuracy"] > 0.5
