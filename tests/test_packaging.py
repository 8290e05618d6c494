"""The wheel, and the order of imports."""

from __future__ import annotations

import ast
import os
import pkgutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("clients", "fedssl", "server", "simulations")


def run(command: list[str], cwd: Path, path: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else dict(os.environ)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)], ROOT)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)], target)
    return target


def test_the_command_tells_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from simulations.cli import main

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fedssl {version('fedssl')}\n"


def test_the_packages_share_one_root() -> None:
    import clients
    import fedssl
    import server
    import simulations

    roots = {Path(str(module.__file__)).parent.parent for module in (clients, fedssl, server, simulations)}
    assert roots == {ROOT}


def test_imports_keep_their_order() -> None:
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_every_module_of_fedssl_stands_in_one_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["name"].startswith("inside fedssl"))
    named = sorted(name for layer in layers for name in layer.split(" | "))
    assert named == sorted(f"fedssl.{module.name}" for module in pkgutil.iter_modules([str(ROOT / "fedssl")]))


def test_a_class_name_names_one_thing() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    classes = [node for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
    # A registered class is called as its choice: `aggregation=fedavg` and `method=fedavg` are both FedAvg.
    registered = [node for node in classes if any("register" in ast.unparse(one) for one in node.decorator_list)]
    others = Counter(node.name for node in classes if node not in registered and not node.name.startswith("_"))
    others.update({node.name for node in registered})
    assert [name for name, count in others.items() if count > 1] == []


@pytest.mark.slow
def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    packed = {name for name in names if ".dist-info/" not in name}
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    assert packed == {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {
        "fedssl/data/sources/fashion_small.npz",
        "fedssl/data/sources/fashion_small.NOTICE",
        "fedssl/report/page.html.j2",
    } <= packed
    assert any(name.startswith("simulations/conf/") for name in packed)
    assert {Path(name).name for name in names - packed} >= {"LICENSE", "fashion_small.NOTICE", "entry_points.txt"}


@pytest.mark.slow
def test_the_wheel_works_in_another_folder(installed: Path, tmp_path: Path) -> None:
    code = f"import {', '.join(PACKAGES)}; print(*({', '.join(f'{name}.__file__' for name in PACKAGES)}), sep='\\n')"
    found = run([sys.executable, "-c", code], tmp_path, installed).split("\n")[:4]
    assert {Path(name).parent.parent for name in found} == {installed}
    command = str(installed / "bin" / "fedssl")
    assert "\n  fixmatch " in run([command, "list", "methods"], tmp_path, installed)
    chosen = ["method=fedavg", "data=fashion_small", "model=mlp", "clients=2", "rounds=1", "engine=inline", "out=made"]
    assert "report: made/report.html" in run([command, "run", *chosen], tmp_path, installed)
    assert (tmp_path / "made" / "report.html").stat().st_size > 10_000
