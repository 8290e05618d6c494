"""Runs the cells of a published table that are missing in it; every row is kept as soon as its run has ended."""

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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("study", "method", "variant", "setting", "seed", "split", "round", "metric", "value")
_SPLITS = ("transductive", "val")
"""Splits that a metric's name begins with where it is not of the test split."""
Score = tuple[str, str, float]
"""Round (`last` or `best`), metric and value."""


@dataclass(frozen=True)
class Cell:
    """One run of a table; `setting` gives the axis values in sorted key order."""

    method: str
    variant: str
    setting: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Give what tells runs apart."""
        return self.method, self.variant, self.setting, str(self.seed)


def scores_of(summary: dict[str, Any]) -> list[Score]:
    """Give the scores of a run's summary."""
    return [
        (round_, name, value)
        for round_, part in (("last", "final"), ("best", "best"))
        for name, value in summary[part].items()
        if value is not None and name != "round"
    ]


def run(cell: Cell, study: str, scores: Callable[[Cell, dict[str, Any]], list[Score]]) -> list[dict[str, Any]]:
    """Run one cell in a process of its own and give its rows. Raises RuntimeError with what the run said.

    `scores` gets the run's summary, with the run's `directory` while it is there.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-c", "from simulations.cli import entry; entry()", "run", *cell.overrides]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, f"seed={cell.seed}", f"out={out}"], cwd=folder, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{cell}: {done.stderr[-2000:]}")
        summary = json.loads((out / "summary.json").read_text())
        found = scores(cell, {**summary, "directory": str(out)})
    shared = {"study": study, "method": cell.method, "variant": cell.variant, "setting": cell.setting}
    rows = []
    for round_, name, value in found:
        split = next((split for split in _SPLITS if name.startswith(f"{split}_")), "test")
        place = {"seed": cell.seed, "split": split, "round": round_}
        rows.append({**shared, **place, "metric": name.removeprefix(f"{split}_"), "value": value})
    return rows


def fill(
    cells: Sequence[Cell],
    out: Path,
    jobs: int,
    scores: Callable[[Cell, dict[str, Any]], list[Score]] = lambda _, summary: scores_of(summary),
) -> None:
    """Run the cells that the table lacks, `jobs` at a time; one that fails is said and runs again next time."""
    out.parent.mkdir(exist_ok=True)
    done: set[tuple[str, ...]] = set()
    if out.exists():
        with out.open(newline="") as file:
            done = {(row["method"], row["variant"], row["setting"], row["seed"]) for row in csv.DictReader(file)}
    else:
        out.write_text(",".join(COLUMNS) + "\n")
    missing = [cell for cell in cells if cell.key not in done]
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, cell, out.stem, scores): cell for cell in missing}
        for number, future in enumerate(as_completed(futures), 1):
            if (error := future.exception()) is not None:
                print(f"{number}/{len(missing)} {error}", flush=True)
                continue
            with out.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(future.result())
            print(f"{number}/{len(missing)} {futures[future].key}", flush=True)


def describe(out: Path, command: str, data: Sequence[Path]) -> None:
    """Write what made the table beside it; a file that had another content for earlier rows keeps that hash too."""
    place, hashes = out.with_suffix(".json"), {}
    before = json.loads(place.read_text())["data_sha256"] if place.exists() else {}
    for path in data:
        known, found = before.get(path.name, []), hashlib.sha256(path.read_bytes()).hexdigest()
        hashes[path.name] = known if found in known else [*known, found]
    facts = {
        "command": command,
        "versions": {name: version(name) for name in ("flwr", "torch", "numpy", "ray")},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no accelerator",
        "date": datetime.date.today().isoformat(),
        "data_sha256": hashes,
    }
    place.write_text(json.dumps(facts, indent=2) + "\n")


def arguments(name: str, seeds: int, doc: str | None) -> argparse.ArgumentParser:
    """Give a parser of the options that all tables share."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / f"{name}.csv")
    return parser
