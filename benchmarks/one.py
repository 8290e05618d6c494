"""Runs one experiment in a process of its own and prints what it cost, as one line of JSON.

Usage: python benchmarks/one.py [--memory] KEY=VALUE ...
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


class Clock:
    """A watcher that notes when each round ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def begin(self, experiment: Any, first_round: int) -> None:
        pass

    def stage(self, name: str, done: int, total: int) -> None:
        pass

    def client(self, client_id: int) -> None:
        pass

    def round(self, record: dict[str, Any]) -> None:
        del record
        self.ends.append(time.perf_counter())

    def note(self, line: str) -> None:
        pass

    def warn(self, line: str) -> None:
        print(line, file=sys.stderr)


def family(pid: int) -> list[int]:
    """Give a process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [child for text in task.read_text().split() for child in family(int(text))]
    return found


def proportional_set(pid: int) -> int:
    """Give the bytes that all processes of a family hold, shared ones counted once."""
    total = 0
    for process in family(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total


def main(overrides: list[str], *, memory: bool) -> None:
    import flwr.simulation  # noqa: F401  imports are not what is measured
    import ray  # noqa: F401

    from simulations.compose import compose_experiment
    from simulations.run import execute, prepare

    clock, peak, done = Clock(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], proportional_set(os.getpid()))

    with tempfile.TemporaryDirectory() as folder:
        experiment = compose_experiment([*overrides, f"out={folder}/run"])
        prepare(experiment)
        if memory:  # reading it holds up the processes that are read
            threading.Thread(target=watch, daemon=True).start()
        began = time.perf_counter()
        summary = execute(experiment, clock).summary
    done.set()
    # The first two rounds warm up. The mean, not the median: Flower's rounds end when its polling comes round.
    later = clock.ends[1:]
    mean = (later[-1] - later[0]) / (len(later) - 1) if len(later) > 1 else clock.ends[-1] - began
    print(
        json.dumps(
            {
                "first_round": clock.ends[0] - began,
                "round": mean,
                "peak_bytes": peak[0],
                "weights": summary["weights_sha256"],
            }
        )
    )
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    given = sys.argv[1:]
    main([part for part in given if part != "--memory"], memory="--memory" in given)
