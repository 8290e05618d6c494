from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toys

from simulations.run import Result, execute, load_run

CASES = [
    ("fedavg", "none"),
    ("fixmatch", "none"),
    ("fixmatch", "local_head"),
    ("fedossl", "none"),
    ("semipfl", "mixture"),
    ("fedsto", "none"),
]
OPTIONS = {
    "fedossl": [
        *("labels=total_count", "labels.count=5", "method.batch_size=16", "method.epochs=1"),
        *("method.warmup=off", "method.cache_views=2"),
    ],
    # Both phases, and pseudo-boxes of a detector that is hardly trained.
    "fedsto": [
        *("data=shapes_synthetic", "data.size=64", "data.pictures=40", "data.test_pictures=4", "model=detector"),
        *("model.width=4", "labels=none", "clients=3", "method.warm_up=1", "method.selective_rounds=1"),
        *("method.tau2=0.004", "method.nms_score=0.001", "method.tau1=0"),
    ],
    # Answers that wait, warm base models and a newcomer: all that a server state can hold.
    "semipfl": [
        *("data=imu_synthetic", "data.users=4", "data.server_subjects=4", "data.windows=10"),
        *("model=autoencoder", "model.sizes=[16,8]", "labels=client_rate", "labels.rate=0.3"),
        *("method.hidden=8", "method.domains=2", "method.tau=0.12", "method.base_init=warm"),
        *("method.hardware=late", "method.stale=apply", "method.newcomers=1", "method.new_user=fit_embedding"),
    ],
}


def chosen(method: str, personalization: str) -> list[str]:
    return [f"method={method}", f"personalization={personalization}", *OPTIONS.get(method, [])]


def hashes(result: Result) -> tuple[str, str]:
    """Give the two hashes that must not depend on the engine."""
    return result.summary["weights_sha256"], result.summary["memory_sha256"]


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-c", "from simulations.cli import entry; entry()", "run", *toys.small(*overrides)]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "personalization"), CASES)
def test_ray_with_any_number_of_workers_gives_the_bits_of_inline(
    ray_session: None, run_small: Any, method: str, personalization: str
) -> None:
    choice = chosen(method, personalization)
    expected = hashes(run_small(*choice))
    for workers in (1, 2, 3):
        assert hashes(run_small(*choice, engine="ray", workers=workers)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "personalization"), [("fedavg", "none"), ("fixmatch", "local_head"), ("fedsto", "none")]
)
def test_flowers_runtime_gives_the_bits_of_inline(
    run_small: Any, tmp_path: Path, method: str, personalization: str
) -> None:
    choice = [*chosen(method, personalization), "rounds=3"]
    out = tmp_path / "flower"
    # A process of its own: Flower shuts Ray down when it ends.
    # A cluster that is named and not there is none of its business.
    env = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    words = command(*choice, "engine=flower", "engine.workers=2", f"out={out}")
    done = subprocess.run(words, capture_output=True, timeout=200, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert hashes(Result(out)) == hashes(run_small(*choice))


@pytest.mark.slow
def test_another_seed_gives_other_bits(run_small: Any) -> None:
    one, two = run_small("method=fixmatch"), run_small("method=fixmatch", "seed=1")
    assert hashes(one)[0] != hashes(two)[0]
    assert one.summary["split_sha256"] != two.summary["split_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "personalization", "engine"),
    [
        ("fedavg", "none", "inline"),
        ("fixmatch", "none", "ray"),
        ("fixmatch", "local_head", "inline"),
        ("fedossl", "none", "inline"),
        ("semipfl", "mixture", "inline"),
        ("fedsto", "none", "inline"),
    ],
)
def test_kill_in_mid_round_and_resume_gives_the_bits_of_an_uninterrupted_run(
    run_small: Any, tmp_path: Path, method: str, personalization: str, engine: str
) -> None:
    choice = [*chosen(method, personalization), "rounds=8"]
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(*choice, f"engine={engine}", "engine.workers=1", f"out={out}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for_rounds(out / "metrics.jsonl", 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    assert not (out / "summary.json").exists()
    resumed = execute(load_run(str(out), {"engine.name": "inline"}), resume=True)
    expected = run_small(*choice)
    assert hashes(resumed) == hashes(expected)
    assert [scores(line) for line in lines(resumed)] == [scores(line) for line in lines(expected)]


def wait_for_rounds(path: Path, count: int, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{path} has no {count} rounds after {seconds} s")


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]


def scores(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("seconds", "server_seconds", "elapsed")}
