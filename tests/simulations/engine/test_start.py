"""Tests of how Ray is started and joined; those that start it really are marked slow."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fedssl.config import ConfigError
from simulations.engine import start
from simulations.engine.start import EngineError, RayStart, reachable

RUN = ["method=fedavg", "data=digits", "model=mlp", "model.hidden=8", "rounds=1", "clients=2"]


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_address_where_nobody_listens_is_refused_by_name() -> None:
    address = f"127.0.0.1:{closed_port()}"
    with pytest.raises(EngineError, match=f"engine\\.address='{address}': no Ray cluster answers there"):
        reachable(address)


@pytest.mark.parametrize("address", ["local", "ray://127.0.0.1:10001", "127.0.0.1", ":6379", "host:port"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.address=.*`auto` or host:port"):
        reachable(address)


def test_auto_without_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    with pytest.raises(EngineError, match=r"engine\.address='auto': no Ray cluster"):
        reachable("auto")


class Made:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def slow_ray(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Put a Ray in place that begins when the event is set."""
    begins = threading.Event()

    def begin(cpus: int, address: str) -> bool:
        return not begins.wait(10)

    monkeypatch.setattr(start, "start_ray", begin)
    return begins


def test_a_start_that_takes_too_long_ends_with_what_is_in_the_way(
    slow_ray: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(start, "JOIN_SECONDS", 0.05)
    begun = RayStart(1, "127.0.0.1:1", Made)
    with pytest.raises(EngineError, match=r"engine\.address='127.0.0.1:1': something listens there"):
        begun.result()
    begun.close()
    slow_ray.set()


def test_a_start_that_is_given_up_ends_what_it_made_by_itself(slow_ray: threading.Event) -> None:
    made = Made()
    begun = RayStart(1, "", lambda: made)
    began = time.perf_counter()
    begun.close()
    assert time.perf_counter() - began < 1
    slow_ray.set()
    begun._thread.join(5)
    assert not begun._thread.is_alive()
    assert begun._made is None


def test_what_a_failed_start_raised_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cpus: int, address: str) -> bool:
        raise EngineError("Ray could not start: no")

    monkeypatch.setattr(start, "start_ray", refuse)
    begun = RayStart(1, "", Made)
    with pytest.raises(EngineError, match="no"):
        begun.result()
    begun.close()


def program(*words: str, folder: Path, **env: str) -> Any:
    """Run the command in a folder, and give what it said."""
    done = [sys.executable, "-c", "from simulations.cli import entry; entry()", "run", *RUN, *words]
    return subprocess.run(done, cwd=folder, env={**surroundings(), **env}, capture_output=True, timeout=200, text=True)


def surroundings() -> dict[str, str]:
    """Return the environment of an installed command: our packages are found, the current folder is not looked in."""
    ours = str(Path(start.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": ours, "PYTHONSAFEPATH": "1"}


def users_files(folder: Path) -> None:
    """Write files and folders with the names of our packages."""
    for name in ("fedssl", "clients", "server", "simulations"):
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    for name in ("clients", "server"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('a folder of the user was imported')")


@pytest.mark.slow
def test_neither_a_cluster_nor_files_of_the_user_are_in_the_way(tmp_path: Path) -> None:
    """RAY_ADDRESS and the file of a head that has died both name a cluster; the folder has modules named like ours."""
    users_files(tmp_path)
    (tmp_path / "t" / "ray").mkdir(parents=True)
    cluster = f"127.0.0.1:{closed_port()}"
    (tmp_path / "t" / "ray" / "ray_current_cluster").write_text(cluster)
    # A short name: Ray makes sockets below it.
    short = Path("/tmp") / f"t{os.getpid()}"
    short.symlink_to(tmp_path / "t")
    try:
        done = program("out=run", "engine.workers=1", folder=tmp_path, RAY_ADDRESS=cluster, TMPDIR=str(short))
    finally:
        short.unlink()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_ray_that_cannot_start_leaves_nothing_and_says_why_in_a_line(tmp_path: Path) -> None:
    done = program("out=a/run", "engine.workers=1", folder=tmp_path, RAY_TMPDIR="/proc/nowhere")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("fedssl: Ray could not start:")
    assert "/proc/nowhere" in done.stderr
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys
from simulations import simulate
for engine in ("inline", "ray"):
    print(simulate([*{run!r}, f"engine={{engine}}", "engine.workers=1", f"out={{engine}}"]).summary["status"])
"""


def test_an_end_while_ray_is_only_being_imported_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray puts its psutil on the path after its own name is in sys.modules.
    monkeypatch.setitem(sys.modules, "ray", sys)
    monkeypatch.setitem(sys.modules, "psutil", None)
    done = threading.Event()
    starting = threading.Thread(target=done.wait, name=start.STARTING, daemon=True)
    starting.start()
    try:
        start.kill_started()
        assert starting.is_alive()
    finally:
        done.set()
        starting.join()


@pytest.mark.slow
def test_a_script_beside_files_with_our_names_runs(tmp_path: Path) -> None:
    users_files(tmp_path)
    (tmp_path / "simulations.py").unlink()
    (tmp_path / "mine.py").write_text(SCRIPT.format(run=RUN))
    env = surroundings()
    del env["PYTHONSAFEPATH"]
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, env=env, capture_output=True, timeout=200, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["done", "done"]


@pytest.mark.parametrize("name", ["fedssl", "clients", "server"])
def test_a_script_that_has_imported_its_own_file_is_told_which_is_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "mine.py").write_text(f"import {name}\nfrom simulations import simulate\n")
    env = surroundings()
    del env["PYTHONSAFEPATH"]
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, env=env, capture_output=True, timeout=60, text=True
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert str(tmp_path / f"{name}.py") in last
    assert "rename" in last
