"""All speed cells as ratios: systems alternated, medians over repeats, one table and one CSV.

Usage: python benchmarks/run.py [--only G1,G2] [--repeats 3] [--out benchmarks/speed.csv] [--pfl-python PATH]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
GOALS = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8")
PEERS = HERE / "peers"
QUIET = ["partition=iid", "labels=asis", "validation=0", "evaluation.every=100000", "checkpoint.every=0"]


@dataclass
class Comparison:
    """One comparison: `ours` and `theirs` are commands, `ratio` is how many times better ours must be."""

    goal: str
    what: str
    ours: list[str]
    theirs: list[str]
    passes: float
    aim: float
    measure: str = "round"
    rows: list[tuple[float, float]] = field(default_factory=list)


def images(folder: Path, count: int, side: int = 28) -> str:
    """Write `count` random pictures of ten classes; give the override that chooses them."""
    path = folder / f"random-{count}-{side}.npz"
    if not path.exists():
        generator = np.random.default_rng(0)
        x = generator.integers(0, 256, (count + 100, side, side), dtype=np.uint8)
        y = np.arange(count + 100) % 10
        np.savez(path, x_train=x[:-100], y_train=y[:-100], x_test=x[-100:], y_test=y[-100:])
    return f"data.path={path}"


def one(*overrides: str) -> list[str]:
    """Give the command that runs one experiment."""
    return [str(HERE / "one.py"), "data=npz", *QUIET, *overrides]


def bare(rounds: int, *overrides: str) -> list[str]:
    """Give the command that runs a bare loop."""
    return [str(HERE / "bare_loop.py"), str(rounds), "data=npz", *QUIET, *overrides]


def run(command: list[str]) -> dict[str, Any]:
    """Run a command and return what it measured, from its last line; a script runs in this Python."""
    program = [sys.executable, *command] if command[0].endswith(".py") else command
    paths = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(program, capture_output=True, text=True, timeout=900, env=paths)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def scenes(script: str, *overrides: str) -> list[str]:
    """Give the command that trains a detector on a server's scenes, with as little else as there can be."""
    data = (
        "data=shapes_synthetic",
        "data.size=224",
        "data.pictures=200",
        "data.server_share=0.8",
        "data.test_pictures=2",
    )
    method = ("method=ssfl", "method.labeller=none", "method.warm_up=0", "model=detector", "partition=natural")
    rest = ("labels=none", "clients=3", "validation=0", "evaluation.every=100000", "checkpoint.every=0")
    return [str(HERE / script), *overrides, *data, *method, *rest]


def small_clients(folder: Path) -> list[str]:
    """Give G1's workload: LeNet, 10 clients x 50 images, batch 10."""
    return [
        images(folder, 500),
        "method=fedavg",
        "method.batch_size=10",
        "method.epoch_over=labelled",
        "model=lenet",
        "clients=10",
    ]


def cells(folder: Path) -> list[Comparison]:
    """Give all cells of the performance goals that compare two systems."""
    g1 = small_clients(folder)
    no_op = [
        f"method_file={HERE / 'no_op.py'}",
        "method=no_op",
        images(folder, 1000),
        "clients=100",
        "participation=0.1",
    ]
    tiny, big = ["model=mlp", "model.hidden=1", "model.layers=1"], ["model=mlp", "model.hidden=1900", "model.layers=1"]
    ray, flower, inline = (
        ["engine=ray", "engine.workers=2"],
        ["engine=flower", "engine.workers=2"],
        ["engine=inline"],
    )
    found = [
        Comparison(
            "G1", "LeNet, 10 x 50 images, 2 workers", one(*g1, *ray, "rounds=80"), one(*g1, *flower, "rounds=25"), 4, 6
        ),
        Comparison(
            "G3", "first round, LeNet", one(*g1, "rounds=1"), one(*g1, *flower, "rounds=1"), 8, 20, "first_round"
        ),
    ]
    for name, model, goals in (("1 k", tiny, (100, 200, 20, 40)), ("1.5 M", big, (10, 60, 5, 10))):
        theirs = one(*no_op, *model, *flower, "rounds=25")
        found.append(
            Comparison("G2", f"no-op {name}, inline", one(*no_op, *model, *inline, "rounds=60"), theirs, *goals[:2])
        )
        found.append(Comparison("G2", f"no-op {name}, ray", one(*no_op, *model, *ray, "rounds=60"), theirs, *goals[2:]))
    semi = [images(folder, 1000), "method=fixmatch", "method.batch_size=32", "method.ratio=2", "clients=4"]
    semi += ["model=resnet", "method.schedule=constant"]
    flat = [*g1, "method.schedule=constant"]
    found += [
        Comparison("G5", "FixMatch, ResNet w16", one(*semi, *inline, "rounds=8"), bare(8, *semi), 1 / 1.03, 1 / 1.01),
        Comparison(
            "G5", "LeNet, 1 worker", one(*flat, "engine.workers=1", "rounds=40"), bare(40, *flat), 1 / 1.10, 1.0
        ),
    ]
    detector = scenes("one.py", "engine=inline", "rounds=40"), scenes("bare_detector.py", "40")
    found.append(Comparison("G5", "detector on labelled scenes, 224 px", *detector, 1 / 1.03, 1 / 1.01))
    # G1 without its data and its number of clients.
    few = [*g1[1:-1], *ray, "rounds=30"]
    for clients, label in ((1000, "1,000"), (10000, "10,000")):
        many = one(images(folder, clients * 50, 8), *few, f"clients={clients}", f"participation={10 / clients}")
        base = one(images(folder, 500, 8), *few, "clients=10")
        found.append(Comparison("G6", f"10 of {label} clients against 10 of 10", many, base, 1 / 1.05, 1 / 1.05))
    wide = one(images(folder, 50000, 8), *few, "clients=1000", "participation=0.1")
    narrow = one(images(folder, 50000, 8), *few, "clients=1000", "participation=0.01")
    found.append(Comparison("G6", "100 of 1,000 against 10 of 1,000 (time / 10)", wide, narrow, 1 / 11, 1 / 10))
    held = [images(folder, 50000, 8), *g1[1:-1], "clients=1000", "participation=0.01", "rounds=3"]
    found.append(
        Comparison(
            "G7",
            "memory of all processes, 1,000 clients",
            one("--memory", *held, *ray),
            one("--memory", *held, *flower),
            2,
            4,
            "peak_bytes",
        )
    )
    return found


def peers(folder: Path, pfl_python: str) -> list[Comparison]:
    """Return G4's cells: plain SGD on G1's clients, against pfl in an environment of its own."""
    file = images(folder, 500)
    method = [f"method_file={PEERS / 'plain_fedavg.py'}", "method=plain_fedavg", file, "model=lenet", "clients=10"]
    pfl = [str(PEERS / "pfl_rounds.py"), "80", file.removeprefix("data.path=")]
    two = [pfl_python, "-m", "torch.distributed.run", "--nproc-per-node=2", *pfl]
    inline, ray = (one(*method, "rounds=80", engine) for engine in ("engine=inline", "engine=ray"))
    return [
        Comparison("G4", "LeNet, 1 process, against pfl", inline, [pfl_python, *pfl], 1.1, 1.3),
        Comparison("G4", "LeNet, 2 workers, against pfl with 2 processes", [*ray, "engine.workers=2"], two, 1.1, 1.3),
    ]


def measure(cell: Comparison, repeats: int, show: Callable[[str], None]) -> None:
    """Run both sides in turn; in a ratio larger is better for us."""
    for repeat in range(repeats):
        order = (cell.ours, cell.theirs) if repeat % 2 == 0 else (cell.theirs, cell.ours)
        values = {id(command): float(run(command)[cell.measure]) for command in order}
        cell.rows.append((values[id(cell.ours)], values[id(cell.theirs)]))
        show(f"  {cell.goal} {cell.what}: {cell.rows[-1][0]:.5g} against {cell.rows[-1][1]:.5g}")


def idle_bytes(folder: Path) -> float:
    """Give the bytes of one more idle client, from runs with 1,000 and 10,000 of them."""
    sides = []
    for clients in (1000, 10000):
        overrides = [images(folder, 500000, 8), *small_clients(folder)[1:-1], "engine=inline", "rounds=2"]
        measured = run(one("--memory", *overrides, f"clients={clients}", f"participation={10 / clients}"))
        sides.append(float(measured["peak_bytes"]))
    return (sides[1] - sides[0]) / 9000


def verdict(cell: Comparison) -> dict[str, Any]:
    """Give the table row of a measured cell."""
    ratios = [theirs / ours for ours, theirs in cell.rows]
    ratio = statistics.median(ratios)
    word = "aim" if ratio >= cell.aim else "pass" if ratio >= cell.passes else "short"
    return {
        "goal": cell.goal,
        "what": cell.what,
        "ours": f"{statistics.median(row[0] for row in cell.rows):.5g}",
        "theirs": f"{statistics.median(row[1] for row in cell.rows):.5g}",
        "ratio": f"{ratio:.3g}",
        "spread": f"{min(ratios):.3g}..{max(ratios):.3g}",
        "pass": f"{cell.passes:.3g}",
        "aim": f"{cell.aim:.3g}",
        "verdict": word,
    }


def data_path(repeats: int) -> list[Comparison]:
    """Give G8's cells, measured."""
    found = run([str(HERE / "data_path.py"), "--json", "--repeats", str(repeats)])["cells"]
    return [Comparison("G8", item.pop("what"), [], [], **item) for item in found]


def comparisons(chosen: set[str], text: str, repeats: int, folder: Path, pfl_python: str = "") -> Iterator[Comparison]:
    """Give the chosen goals' cells whose name holds `text` one after another, each when it is measured."""
    if "G4" in chosen and not pfl_python:
        print("G4 left out: it needs --pfl-python, see docs/performance.md", flush=True)
    if chosen - {"G8"}:
        for cell in [*cells(folder), *(peers(folder, pfl_python) if pfl_python else [])]:
            if cell.goal in chosen and text in cell.what:
                measure(cell, repeats, lambda line: print(line, flush=True))
                yield cell
    if "G8" in chosen:
        yield from (cell for cell in data_path(repeats) if text in cell.what)


def keep(row: dict[str, Any], out: Path) -> None:
    """Put a row into the table, in place of an older one of the same cell."""
    rows = [row]
    if out.exists():
        with out.open(newline="") as file:
            olds = csv.DictReader(file)
            rows = [*(old for old in olds if (old["goal"], old["what"]) != (row["goal"], row["what"])), row]
    rows.sort(key=lambda item: str(item["goal"]))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(GOALS), help=f"goals with commas between: {', '.join(GOALS)}")
    parser.add_argument("--what", default="", help="only comparisons whose name holds this text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "speed.csv")
    parser.add_argument("--pfl-python", default="", help="Python of an environment with pfl, for G4")
    options = parser.parse_args()
    chosen = set(options.only.split(","))
    if chosen - set(GOALS):
        parser.error(f"--only {options.only}: must be of {', '.join(GOALS)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for cell in comparisons(chosen, options.what, options.repeats, Path(name), options.pfl_python):
            row = verdict(cell)
            print(row, flush=True)
            keep(row, options.out)
        if "G7" in chosen:
            print(f"G7 bytes of one more idle client (50 images, so 400 of indices): {idle_bytes(Path(name)):.0f}")


if __name__ == "__main__":
    main()
