from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = "data=digits partition=iid labels=client_rate model=mlp model.hidden=8 clients=3 rounds=100000"


def family(pid: int) -> set[int]:
    """Give the process ids of all descendants, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: set[int] = set()
    while True:
        more = {child for child, parent in parents.items() if parent in found | {pid}} - found
        if not more:
            return found
        found |= more


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("engine", "number"), [("inline", signal.SIGINT), ("ray", signal.SIGINT), ("ray", signal.SIGTERM)]
)
def test_a_signal_ends_a_run_and_all_its_processes(tmp_path: Path, number: int, engine: str) -> None:
    out = tmp_path / "run"
    program = Path(sys.executable).with_name("fedssl")
    workers = ["engine.workers=1"] if engine == "ray" else []
    words = [*SMALL.split(), f"out={out}", f"engine={engine}", *workers]
    with (tmp_path / "log").open("w") as log:
        # A background job of a shell, as a CI may be, ignores SIGINT and hands that on.
        heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen([program, "run", *words], cwd=tmp_path, stdout=log, stderr=log, preexec_fn=heard)
    try:
        journal = out / "metrics.jsonl"
        end = time.monotonic() + 120
        while time.monotonic() < end and not (journal.exists() and journal.read_text().count("\n") >= 2):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        children = family(process.pid)
        began = time.perf_counter()
        os.kill(process.pid, number)
        code = process.wait(30)
        seconds = time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
    print(f"{engine}: {seconds:.1f} s")
    assert code == 130, (tmp_path / "log").read_text()[-2000:]
    # Five seconds on an idle machine; more where tests share the cores.
    assert seconds < 10
    end = time.monotonic() + 5
    while any(map(alive, children)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in children if alive(pid)]
    stopped = json.loads((out / "summary.json").read_text())
    assert stopped["status"] == "stopped"
    assert stopped["rounds"] == len((out / "metrics.jsonl").read_text().splitlines()) >= 2
    from server import checkpoint

    # The signal may fall between the journal's line and the checkpoint.
    assert stopped["rounds"] - checkpoint.load(out / "checkpoint")[0].round_ in (0, 1)
    assert "Traceback" not in (tmp_path / "log").read_text()


STOPS = {
    # While Ray starts before the first round: there is nothing yet to go on with.
    "at_once": (["engine.start=at_once"], signal.SIGINT, "gcs_server", False),
    # While Ray starts beside the rounds.
    "beside": ([], signal.SIGINT, "gcs_server", True),
    # After workers have taken over.
    "after": ([], signal.SIGTERM, "workers take over", True),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("case", STOPS)
def test_a_signal_about_the_start_of_ray_leaves_no_process(tmp_path: Path, case: str) -> None:
    words, number, sign, begun = STOPS[case]
    out, log = tmp_path / "run", tmp_path / "log"
    program = Path(sys.executable).with_name("fedssl")
    with log.open("w") as file:
        heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        command = [program, "run", *SMALL.split(), f"out={out}", *words]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file, preexec_fn=heard)
    try:
        end = time.monotonic() + 120
        while not (sign in log.read_text() or any(sign in name(pid) for pid in family(process.pid))):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        children = family(process.pid)
        os.kill(process.pid, number)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert code == 130, log.read_text()[-2000:]
    assert "Traceback" not in log.read_text()
    end = time.monotonic() + 10
    while (left := [pid for pid in children if alive(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left
    assert out.exists() == begun
    if begun:
        assert json.loads((out / "summary.json").read_text())["status"] == "stopped"


def name(pid: int) -> str:
    """Give the program of a process, empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
    except OSError:
        return ""
