"""The baselines table: FixMatch against FedAvg on the same labels, and what the hooks add. Resumable.

Usage: python benchmarks/baselines.py [--jobs 2] [--seeds 5] [--out results/baselines.csv]

All runs share model, rounds and number of local steps; every run is calibrated by temperature and finetuned at the
end, which changes neither weights nor training, so that one run gives the scores before and after.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("study", "method", "variant", "setting", "seed", "split", "round", "metric", "value")
COMMON = [
    *("data=fashion_small", "model=lenet", "clients=10", "rounds=50", "engine=inline"),
    *("evaluation.every=5", "checkpoint.every=0", "calibration=temperature"),
]
STEPS = {"fixmatch": ["method.batch_size=8", "method.ratio=2"], "fedavg": ["method.batch_size=16"]}
PARTITIONS = {"iid": ["partition=iid"], "dirichlet-0.1": ["partition=dirichlet", "partition.alpha=0.1"]}


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    method: str
    variant: str
    partition: str
    labels: str
    seed: int

    @property
    def setting(self) -> str:
        """Give the axis values in sorted key order."""
        return f"clients=10;labels={self.labels};partition={self.partition}"

    @property
    def overrides(self) -> list[str]:
        """Give what `fedssl run` is told."""
        rule = ["labels=client_rate", "labels.rate=1.0"]
        if self.labels != "all":
            rule = ["labels=total_count", f"labels.count={self.labels}"]
        own = "local_head" if self.variant == "local_head" else "finetune"
        given = [f"method={self.method}", *STEPS[self.method], f"personalization={own}", f"seed={self.seed}"]
        return [*COMMON, *PARTITIONS[self.partition], *rule, *given]


def cells(seeds: int) -> Iterator[Cell]:
    """Give all runs, one seed after the other, so that a table begun is a table."""
    for seed in range(seeds):
        for partition in PARTITIONS:
            for labels in ("10", "40"):
                yield Cell("fedavg", "", partition, labels, seed)
                yield Cell("fixmatch", "", partition, labels, seed)
            yield Cell("fedavg", "", partition, "all", seed)
        yield Cell("fixmatch", "local_head", "dirichlet-0.1", "40", seed)


def run(cell: Cell) -> list[dict[str, Any]]:
    """Run one cell in a process of its own and give its rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        code = "from simulations.cli import entry; entry()"
        command = [sys.executable, "-c", code, "run", *cell.overrides, f"out={out}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{cell}: {done.stderr[-2000:]}")
        summary = json.loads((out / "summary.json").read_text())
    scores = [("last", name, value) for name, value in summary["final"].items()]
    scores += [("best", name, value) for name, value in summary["best"].items()]
    if cell.variant != "local_head":
        scores.append(("last", "client_accuracy", summary["clients"]["mean"]))
    shared = {"study": "baselines", "method": cell.method, "variant": cell.variant, "setting": cell.setting}
    return [
        {**shared, "seed": cell.seed, "split": "test", "round": round_, "metric": name, "value": value}
        for round_, name, value in scores
        if value is not None and name != "round"
    ]


def key(row: dict[str, Any]) -> tuple[str, ...]:
    """Give what tells runs apart."""
    return tuple(str(row[name]) for name in ("method", "variant", "setting", "seed"))


def describe(path: Path, seeds: int) -> None:
    """Write what made the table beside it."""
    data = hashlib.sha256((ROOT / "fedssl/data/fashion_small.npz").read_bytes()).hexdigest()
    facts = {
        "command": f"python benchmarks/baselines.py --seeds {seeds}",
        "versions": {name: version(name) for name in ("flwr", "torch", "numpy", "ray")},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no accelerator",
        "date": datetime.date.today().isoformat(),
        "data_sha256": {"fashion_small.npz": data},
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    """Run what is missing in the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "baselines.csv")
    options = parser.parse_args()
    options.out.parent.mkdir(exist_ok=True)
    done = {key(row) for row in csv.DictReader(options.out.open())} if options.out.exists() else set()
    if not done:
        options.out.write_text(",".join(COLUMNS) + "\n")
    missing = [
        cell for cell in cells(options.seeds) if (cell.method, cell.variant, cell.setting, str(cell.seed)) not in done
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(run, cell): cell for cell in missing}
        for number, future in enumerate(as_completed(futures), 1):
            if (error := future.exception()) is not None:
                # The other runs are still worth having; this one is missing and runs again next time.
                print(f"{number}/{len(missing)} {error}", flush=True)
                continue
            rows = future.result()
            with options.out.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(rows)
            print(f"{number}/{len(missing)} {futures[future]}", flush=True)
    describe(options.out, options.seeds)


if __name__ == "__main__":
    main()
