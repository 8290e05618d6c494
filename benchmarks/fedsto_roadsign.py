"""FedSTO against its baselines on road signs: cloudy server, overcast, rainy and snowy clients. Resumable.

Usage: python benchmarks/fedsto_roadsign.py --data FOLDER --weights FILE [--jobs 2] [--seeds 3] [--weather noniid]
                                            [--only TEXT] [--again]

FILE holds the first backbone and neck, trained on 3,973 synthetic scenes; it is made if it is not there.
The last runs are of seed 0: FedSTO and federated averaging (`ssfl`) with 12 clients, four a weather, and `OTHERS`.
Weights and warm-up have other bits on other types of processor: a table that is continued on one has `fedsto/again`,
FedSTO on the second, by `--again`.
Everybody begins with the same 300 epochs on the server's labels and goes on for 40 rounds of one local and one server
epoch; `all_labels/central` has all labels in its first epochs too. Scores are of the last round, and of each evaluated.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from published import Cell, Score, arguments, describe, fill, run, scores_of

CLIENTS, MANY, ROUNDS, EVERY = 3, 12, 40, 5
AVERAGES = ("method.server_average=0.95", "method.client_average=0.95")
EPOCHS, FEW_EPOCHS, OF_ALL = 300, 60, 90
"""Of the warm-up: as many steps as the paper's; as few as 60 epochs; with the labels of all, about as many steps."""
OVERRIDES: tuple[str, ...] = (
    *("data=roadsign", "data.size=224", "model=detector", "partition=natural", "validation=0"),
    *(f"rounds={ROUNDS}", f"evaluation.every={EVERY}", "evaluation.batch_size=32"),
    *("engine=inline", "checkpoint.every=0"),
    *AVERAGES,
    f"method.warm_up={EPOCHS}",
)
FIRST: tuple[str, ...] = (
    *("method=ssfl", "method.labeller=none", "method.warm_up=24", "method.server_epochs=0", "rounds=1", "labels=none"),
    *("data=shapes_synthetic", "data.pictures=4096", "data.server_share=0.97", "engine=inline", "checkpoint.every=0"),
)
"""The run whose model the others begin with: 24 epochs on synthetic scenes, in place of the weights from COCO."""
UNLABELLED = ("labels=none",)
SSFL, FEDSTO = ("method=ssfl", *UNLABELLED), ("method=fedsto", *UNLABELLED)
SERVER_ONLY = "method.labeller=none"
Runs = dict[tuple[str, str], tuple[str, ...]]
RUNS: Runs = {
    ("fedsto", ""): FEDSTO,
    ("all_labels", "central"): (
        *("method=ssfl", SERVER_ONLY),
        *("labels=server", "labels.rate=1", "labels.copies=true"),
        f"method.warm_up={OF_ALL}",
    ),
    ("server_only", ""): (*SSFL, SERVER_ONLY),
    ("ssfl", ""): SSFL,
    ("all_labels", ""): ("method=ssfl", "labels=asis"),
    ("fedsto", "no_orthogonal"): (*FEDSTO, "method.orthogonal=0"),
    ("fedsto", "selective_only"): (*FEDSTO, f"method.selective_rounds={ROUNDS}"),
    ("ssfl", "global_labeller"): (*SSFL, "method.labeller=global"),
    ("ssfl", "fedadam"): (*SSFL, "aggregation=FedAdam", "aggregation.eta=0.001"),
    ("ssfl", "fedbn"): (*SSFL, "personalization=local_norm"),
}
"""Clients of `server_only` and of the centralised run do not train; `all_labels` is supervised federated learning.

The centralised run, whose warm-up is its own, is second, so that two at once do not train the shared one twice.
"""
OF_MANY = (("fedsto", ""), ("ssfl", ""))
CLIENTS_LAST = "method.client_average=0"
OTHERS: Runs = {
    ("fedsto", "last_step"): (*FEDSTO, CLIENTS_LAST, "method.server_average=0"),
    ("fedsto", "clients_last_step"): (*FEDSTO, CLIENTS_LAST),
    ("ssfl", "clients_last_step"): (*SSFL, CLIENTS_LAST),
    ("all_labels", "clients_last_step"): ("method=ssfl", "labels=asis", CLIENTS_LAST),
    ("server_only", "warm_up_60"): (*SSFL, SERVER_ONLY, f"method.warm_up={FEW_EPOCHS}"),
}
"""Runs of seed 0 alone: weights of the last step, as printed, of all and of the clients; a short warm-up."""
AGAIN: Runs = {("fedsto", "again"): FEDSTO}
TOTAL = "map50_total"
LATE, LAST = "late_", 3
"""Prefix of means over the last three evaluations: at a constant learning rate the last one alone jumps about."""
WEATHERS = ("overcast", "rainy", "snowy")
PARTS = ("pseudo_precision", "pseudo_coverage", "pseudo_reliable_per_image", "orthogonality_above_floor")


def cell(key: tuple[str, str], data: Path, weights: Path, weather: str, clients: int, seed: int) -> Cell:
    """Give one run."""
    parties = (f"clients={clients}", f"data.per_weather={clients // len(WEATHERS)}")
    files = (f"data.path={data}", f"method.warm_up_weights={weights}")
    given = {one.partition("=")[0]: one for one in (*OVERRIDES, *{**RUNS, **OTHERS, **AGAIN}[key])}
    return Cell(
        *key,
        f"clients={clients};weather={weather}",
        seed,
        (*files, f"data.weather={weather}", *parties, *given.values()),
    )


def cells(seeds: int, data: Path, weights: Path, weather: str, again: bool = False) -> Iterator[Cell]:
    """Give all runs of a seed before the next, then those of one seed; or FedSTO's `again`."""
    for seed in range(seeds):
        for key in AGAIN if again else RUNS:
            yield cell(key, data, weights, weather, CLIENTS, seed)
    if again:
        return
    for key in OF_MANY:
        yield cell(key, data, weights, weather, MANY, 0)
    for key in OTHERS:
        yield cell(key, data, weights, weather, CLIENTS, 0)


def make_weights(file: Path) -> None:
    """Train the first weights. Raises RuntimeError with what the run said."""

    def keep(_: Cell, summary: dict[str, Any]) -> list[Score]:
        shutil.copy(Path(summary["directory"]) / "model.safetensors", file)
        return []

    print(f"training the first weights, {file}: 11 minutes of one core", flush=True)
    run(Cell("ssfl", "first", "", 0, FIRST), "first", keep)


def scores(chosen: Cell, summary: dict[str, Any]) -> list[Score]:
    """Give scores after the warm-up (`warm_up_...`), at the end and late (`late_...`), costs, and the course by round.

    `map50_clients` is the mean over the clients' weathers; with FedBN all are those of the clients' own models.
    `collapsed` compares global models, so that a run without one has none.
    """
    del chosen
    directory = Path(summary["directory"])
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    described = json.loads((directory / "method.json").read_text())
    found = {name: value for round_, name, value in scores_of(summary) if round_ == "last"}
    found |= {f"warm_up_{name}": value for name, value in described["warm_up"].items()}
    late = [record["test"] for record in records if record["test"]][-LAST:]
    for name in [name for name in found if name.startswith(("map50", "personal_map50"))]:
        if late and all(name in test for test in late):
            found[LATE + name] = fmean(test[name] for test in late)
    for prefix in ("", "personal_", "warm_up_", LATE, f"{LATE}personal_"):
        named = [found.get(f"{prefix}map50_{weather}") for weather in WEATHERS]
        if all(value is not None for value in named):
            found[f"{prefix}map50_clients"] = fmean(value for value in named if value is not None)
    found |= {name: float(summary[name]) for name in ("bytes_up", "bytes_down", "wall_seconds")}
    if TOTAL in found:
        found["collapsed"] = float(described["collapsed"])
    rows: list[Score] = [("last", name, value) for name, value in found.items()]
    for record in records:
        course = {name: record["test"].get(name) for name in (TOTAL, f"personal_{TOTAL}")}
        course |= {name: record["train"].get(name) for name in PARTS}
        known = {name: value for name, value in course.items() if value is not None and not math.isnan(value)}
        rows += [(str(record["round"]), name, value) for name, value in known.items()]
    return rows


def collapsed(rows: list[dict[str, str]]) -> list[str]:
    """Give the runs that ended below their warm-up."""
    fallen = [row for row in rows if row["metric"] == "collapsed" and float(row["value"]) > 0]
    return ["/".join(filter(None, (row["method"], row["variant"], row["setting"], row["seed"]))) for row in fallen]


def commands(rows: list[dict[str, str]], seeds: int) -> str:
    """Give what makes all rows: a command for each weather that the table has, and for what was run again."""
    variants = {variant for _, variant in AGAIN}
    made = sorted({(row["variant"] in variants, row["setting"].endswith("weather=iid")) for row in rows})
    given = f"python benchmarks/fedsto_roadsign.py --data FOLDER --weights FILE --seeds {seeds} --weather"
    return "; ".join(f"{given} {'iid' if iid else 'noniid'}{' --again' * again}" for again, iid in made)


def main() -> None:
    """Run what is missing in the table."""
    parser = arguments("fedsto_roadsign", 3, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="roadsign.npz, or the folder it lies in")
    parser.add_argument("--weights", type=Path, required=True, help="first weights, made if the file is not there")
    parser.add_argument("--weather", default="noniid", choices=("noniid", "iid"))
    parser.add_argument("--only", default="", help="only runs whose method/variant/setting/seed holds this text")
    parser.add_argument("--again", action="store_true", help="only FedSTO's runs on another type of processor")
    options = parser.parse_args()
    data, weights = options.data.resolve(), options.weights.resolve()
    found = cells(options.seeds, data, weights, options.weather, options.again)
    chosen = [one for one in found if options.only in "/".join(one.key)]
    files = [data / "roadsign.npz" if data.is_dir() else data, weights]
    if not files[0].is_file():
        parser.error(f"--data {options.data}: must be roadsign.npz, or the folder it lies in")
    if not chosen:
        parser.error(f"--only {options.only}: must be part of a run's method/variant/setting/seed")
    if not weights.exists():
        make_weights(weights)
    fill(chosen, options.out, options.jobs, scores)
    with options.out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in collapsed(rows):
        print(f"below its warm-up: {name}")
    describe(options.out, commands(rows, options.seeds), files)


if __name__ == "__main__":
    main()
