"""The commands of docs/deployment.md, as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PORT = 39091


def documented(out: Path) -> str:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    block = re.search(r"^```bash\n(.*?flwr run .*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1].replace("runs/flwr", str(out))


def port_is_taken() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def started_under(folder: Path) -> list[int]:
    """Give the processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: Ray puts sockets below it, whose names may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="flwr-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes in /proc")
def test_flwr_run_trains_and_leaves_nothing_behind(tmp_path: Path, home: Path) -> None:
    if port_is_taken():
        pytest.skip(f"port {PORT} is taken by another SuperLink")
    out = tmp_path / "run"
    script = tmp_path / "documented.sh"
    script.write_text("set -e\n" + documented(out), encoding="utf-8")
    environment = {**os.environ, "TMPDIR": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["bash", str(script)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        log = done.stdout + done.stderr
        assert done.returncode == 0, log
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        assert (summary["status"], summary["rounds"], summary["method"]) == ("done", 2, "fixmatch")
        assert (out / "report.html").exists()
        (app,) = home.glob("*/apps/*")
        assert {path.name for path in app.iterdir()} == {"clients", "server", "pyproject.toml"}
        # The run is the same as on our own engine: nodes have other ids, clients the same.
        assert summary["weights_sha256"] == weights_on_our_engine(tmp_path)
    finally:
        left = started_under(home)
        for process in left:
            os.kill(process, signal.SIGKILL)
    assert not left


def weights_on_our_engine(folder: Path) -> str:
    from simulations.run import simulate

    words = next(line for line in documented(folder / "own").splitlines() if "run_config.py" in line).split()
    chosen = [word for word in words if "=" in word and not word.startswith("out=")]
    made = simulate([*chosen, "engine=inline", f"out={folder / 'own'}"])
    return str(made.summary["weights_sha256"])
