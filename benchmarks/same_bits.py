"""Hashes of every method's golden run over engines, numbers of workers, and a stop with a resume. Prints a table.

Usage: python benchmarks/same_bits.py [--only fedavg,fixmatch] [--flower] [--out FILE.csv]

A row a method: weights and client memories after the last round by `engine=inline`, and which other ways of running it
gave other bits. Exits with 1 if any did. Two files of `--out`, before and after a change, are compared by `diff`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "golden")]

import ray  # noqa: E402
import toys  # noqa: E402
from test_golden import NAMES, OPTIONS, setting  # noqa: E402

from server.watcher import Silence  # noqa: E402
from simulations.run import Result, execute, load_run, simulate  # noqa: E402

WORKERS = (1, 2, 3)


class Stop(Silence):
    """Stops a run once its second round is recorded, as Ctrl-C does."""

    def round(self, record: dict[str, Any]) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt


def hashes(result: Result) -> tuple[str, str]:
    """Return the hashes of the server's state and of the clients' memories."""
    return result.summary["weights_sha256"], result.summary["memory_sha256"]


def run(chosen: Any, folder: Path, engine: str, workers: int = 0) -> tuple[str, str]:
    """Run from the first round to the last."""
    settings = dataclasses.replace(chosen.engine, name=engine, workers=workers)
    return hashes(simulate(dataclasses.replace(chosen, engine=settings, out=str(folder))))


def resumed(chosen: Any, folder: Path, first: str, then: str) -> tuple[str, str]:
    """Stop a run after its second round on one engine and end it on another."""
    settings = dataclasses.replace(chosen.engine, name=first, workers=1)
    try:
        simulate(dataclasses.replace(chosen, engine=settings, out=str(folder)), Stop())
    except KeyboardInterrupt:
        overrides = {"engine.name": then, "engine.workers": "2" if then == "ray" else "0"}
        return hashes(execute(load_run(str(folder), overrides), resume=True))
    raise RuntimeError(f"the run in {folder} did not stop")


def ways(chosen: Any, folder: Path, *, flower: bool) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the name and the hashes of each way, `inline` first."""
    yield "inline", run(chosen, folder / "inline", "inline")
    for workers in WORKERS:
        yield f"ray {workers}", run(chosen, folder / f"ray{workers}", "ray", workers)
    for first, then in (("inline", "inline"), ("inline", "ray"), ("ray", "inline")):
        yield f"{first}, stopped, {then}", resumed(chosen, folder / f"{first}-{then}", first, then)
    if flower:
        yield "flower 2", run(chosen, folder / "flower", "flower", 2)


def main(names: list[str], out: Path | None, *, flower: bool) -> int:
    """Run all ways of all methods and print what differs."""
    rows, bad = [], 0
    if not flower:  # one Ray for all runs; Flower wants one of its own
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    for name in names:
        chosen = toys.experiment(method={"name": name, **OPTIONS.get(name, {})}, **setting(name))
        with tempfile.TemporaryDirectory() as folder:
            found = dict(ways(chosen, Path(folder), flower=flower))
        differing = [way for way, value in found.items() if value != found["inline"]]
        bad += bool(differing)
        rows.append({"method": name, "weights": found["inline"][0], "memory": found["inline"][1], "ways": len(found)})
        print(f"{name:12} {found['inline'][0][:12]} {str(found['inline'][1])[:12]}  {len(found)} ways:", end=" ")
        print(f"other bits by {', '.join(differing)}" if differing else "the same bits", flush=True)
    if out is not None:
        with out.open("w", newline="") as file:
            table = csv.DictWriter(file, ["method", "weights", "memory", "ways"], lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(NAMES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--flower", action="store_true", help="Flower's runtime as well; each such run starts Ray anew")
    given = parser.parse_args()
    sys.exit(main(given.only.split(","), given.out, flower=given.flower))
