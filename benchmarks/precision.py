"""What bfloat16 costs in accuracy: the same runs in fp32 and bf16, paired by seed. Resumable.

Usage: python benchmarks/precision.py --data FOLDER [--jobs 1] [--seeds 5] [--only TEXT]

FOLDER holds wisdm_small.npz. Scores of the last round are kept of test and validation samples; a default is chosen by
the latter. Prints the paired differences with 95 % t-intervals. Needs no processor with fast bfloat16.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from published import ROOT, Cell, Score, arguments, describe, fill
from scipy import stats

PRECISIONS = ("fp32", "bf16")
QUIET = ("engine=inline", "evaluation.every=5", "checkpoint.every=0")
FASHION = (*QUIET, "data=fashion_small", "clients=10")
SENSORS = (*QUIET, "data=wisdm_small", "clients=10")
CLOSED = ("model=resnet", "model.width=8", "partition=dirichlet", "labels=total_count", "labels.count=10")
RUNS: dict[tuple[str, str], tuple[str, ...]] = {
    ("fashion_small", "fedavg"): (*FASHION, *CLOSED, "rounds=20"),
    ("fashion_small", "fixmatch"): (*FASHION, *CLOSED, "rounds=20"),
    ("fashion_small", "fedossl"): (
        *(*FASHION, "model=resnet", "model.head=cosine", "model.weights=auto", "model.pretrain_epochs=5"),
        *("partition=open_world", "labels=client_rate", "labels.rate=0.5", "rounds=10", "calibration=centroid"),
        *("method.epochs=2", "method.batch_size=64", "method.cache_views=4", "method.warmup=off"),
    ),
    ("wisdm_small", "fedavg"): (*SENSORS, "model=cnn1d", "partition=natural", "labels=client_rate", "rounds=20"),
    ("wisdm_small", "fixmatch"): (*SENSORS, "model=cnn1d", "partition=natural", "labels=client_rate", "rounds=20"),
    ("wisdm_small", "semipfl"): (*SENSORS, "method.base_epochs=5", "rounds=20"),
}
MAIN = ("accuracy", "accuracy_all", "personal_accuracy", "macro_f1", "personal_macro_f1", "loss")


def cells(seeds: int, data: Path) -> Iterator[Cell]:
    """Yield all runs, one seed after the other."""
    for seed in range(seeds):
        for (source, method), overrides in RUNS.items():
            path = (f"data.path={data}",) if source == "wisdm_small" else ()
            for precision in PRECISIONS:
                given = (f"method={method}", *overrides, *path, f"precision={precision}")
                yield Cell(method, "", f"clients=10;data={source};precision={precision}", seed, given)


def last_scores(cell: Cell, summary: dict[str, Any]) -> list[Score]:
    """Return the last round's scores on test and validation samples, and the seconds a round."""
    del cell
    lines = (Path(summary["directory"]) / "metrics.jsonl").read_text().splitlines()
    record = json.loads(lines[-1])
    found = [("last", name, value) for name, value in record["test"].items()]
    found += [("last", f"val_{name}", value) for name, value in record["validation"].items()]
    found.append(("last", "seconds_per_round", summary["seconds_per_round"]))
    return [(round_, name, value) for round_, name, value in found if value is not None]


def differences(path: Path) -> Iterator[str]:
    """Yield a line a run and metric: mean of bf16 less fp32 over seeds, with a 95 % t-interval."""
    values: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            setting = dict(part.split("=") for part in row["setting"].split(";"))
            key = (setting["data"], row["method"], row["split"], row["metric"], row["seed"])
            values[key][setting["precision"]] = float(row["value"])
    pairs: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for key, found in values.items():
        if key[3] in MAIN and len(found) == len(PRECISIONS):
            pairs[key[:4]].append(found["bf16"] - found["fp32"])
    for key, all_ in sorted(pairs.items()):
        mean, n = float(np.mean(all_)), len(all_)
        half = float(stats.t.ppf(0.975, n - 1) * np.std(all_, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        yield f"{' '.join(key):48} {mean:+.4f} ± {half:.4f}  n={n}"


def main() -> None:
    """Run what is missing in the table."""
    parser = arguments("precision", 5, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of wisdm_small.npz")
    parser.add_argument("--only", default="", help="only runs whose method/variant/setting/seed holds this text")
    options = parser.parse_args()
    chosen = [c for c in cells(options.seeds, options.data.resolve()) if options.only in "/".join(c.key)]
    fill(chosen, options.out, options.jobs, last_scores)
    command = f"python benchmarks/precision.py --data FOLDER --seeds {options.seeds}"
    files = [ROOT / "fedssl/data/sources/fashion_small.npz", options.data / "wisdm_small.npz"]
    describe(options.out, command, files)
    print(*differences(options.out), sep="\n")


if __name__ == "__main__":
    main()
