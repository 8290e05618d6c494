from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulations.engine.start import EngineError
from simulations.run import Result

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

METHOD = """
from __future__ import annotations
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from fedssl.config import option
from fedssl.methods.base import register
from fedssl.methods.fedavg import FedAvg

@register("{name}")
@dataclass
class Faulty(FedAvg):
    marker: str = option("", "file that says the fault has happened")

    def train_client(self, model, payload, memory, data, step):
        if data.client_id == 1:
            {fault}
        return super().train_client(model, payload, memory, data, step)
"""
ONCE = """marker = Path(self.marker)
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)"""


@pytest.fixture
def faulty(tmp_path: Path) -> Any:
    """Give overrides that choose a method whose client 1 has the given fault."""

    def write(name: str, fault: str) -> list[str]:
        path = tmp_path / f"{name}.py"
        path.write_text(METHOD.format(name=name, fault=fault))
        return [f"method_file={path}", f"method={name}", f"method.marker={tmp_path / name}.marker"]

    return write


def test_a_killed_workers_clients_run_again_elsewhere_to_the_same_bits(run_small: Any, faulty: Any) -> None:
    killed = run_small(*faulty("killed_once", ONCE), engine="ray", workers=2)
    assert killed.summary["weights_sha256"] == run_small("method=fedavg").summary["weights_sha256"]
    assert killed.summary["status"] == "done"
    assert failures(killed) == [set(), set(), set()]


def test_a_client_that_kills_two_workers_is_reported_and_the_round_goes_on(run_small: Any, faulty: Any) -> None:
    result = run_small(*faulty("killed_always", "os._exit(3)"), "rounds=1", engine="ray", workers=2)
    assert failures(result) == [{"1"}]
    assert "worker died 2 times" in result.rounds["failed.1"][0]


SEGFAULT = """with open(self.marker, "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGSEGV)"""


def test_a_clients_crash_is_told_with_its_signal_and_its_place(run_small: Any, faulty: Any) -> None:
    result = run_small(*faulty("crashes", SEGFAULT), "rounds=1", engine="ray", workers=2)
    assert failures(result) == [{"1"}]
    reason = result.rounds["failed.1"][0]
    assert "died 2 times: SIGSEGV in train_client (crashes.py:" in reason.splitlines()[-1]
    assert 'crashes.py", line' in reason


@pytest.mark.parametrize("fault", [SEGFAULT, SEGFAULT.replace("os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(3)")])
def test_clients_that_all_kill_their_workers_end_the_run_at_the_second(
    run_small: Any, faulty: Any, tmp_path: Path, fault: str
) -> None:
    words = faulty(name := "all_crash" if "SIGSEGV" in fault else "all_exit", fault)
    path = tmp_path / f"{name}.py"
    path.write_text(path.read_text().replace("data.client_id == 1", "True"))
    before = set(tmp_path.iterdir())
    with pytest.raises(EngineError, match=r"every worker dies at its client \(first \d and \d\)"):
        run_small(*words, engine="ray", workers=2)
    # Two workers die, and the one that takes the place of the first may too.
    assert len((tmp_path / f"{name}.marker").read_text()) <= 3
    assert set(tmp_path.iterdir()) - before == {tmp_path / f"{name}.marker"}


def test_a_late_client_is_left_out_and_its_worker_replaced(run_small: Any, faulty: Any) -> None:
    late = faulty("late", "time.sleep(600)")
    result = run_small(*late, "rounds=2", "deadline=6", engine="ray", workers=2)
    assert failures(result) == [{"1"}, {"1"}]
    assert "deadline" in result.rounds["failed.1"][0]


def failures(result: Result) -> list[set[str]]:
    import json

    text = (result.directory / "metrics.jsonl").read_text()
    return [set(json.loads(line)["failed"]) for line in text.splitlines()]


def test_a_run_joins_a_cluster_of_two_nodes(tmp_path: Path, run_small: Any) -> None:
    out = tmp_path / "joined"
    small = ["data=digits", "model=resnet", "model.width=4", "rounds=3", "clients=4", "labels.count=5"]
    script = f"""
import os
from ray.cluster_utils import Cluster
from simulations.cli import main

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address
code = main(["run", "method=fedavg", "engine.address=auto", "out={out}", *{small!r}])
cluster.shutdown()
raise SystemExit(code)
"""
    # A process of its own: this one is joined to the session's Ray.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=200, text=True)
    assert done.returncode == 0, done.stderr
    joined = Result(out)
    assert joined.summary["workers"] == 2
    assert joined.summary["weights_sha256"] == run_small("method=fedavg").summary["weights_sha256"]
