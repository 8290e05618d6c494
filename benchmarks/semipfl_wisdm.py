"""SemiPFL against its baselines on WISDM's watch: 18 activities, 9 people at the server, 37 users. Resumable.

Usage: python benchmarks/semipfl_wisdm.py --data FOLDER [--jobs 2] [--seeds 3] [--only TEXT]

Everybody has the same network and gets five visits a user, 6 users a round, and 5 passes over the windows (or as many
steps) a visit. Each user is scored on the last 30 % of its own recordings; models without personalization are scored
on each user's windows too.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from published import COLUMNS, Cell, Score, arguments, describe, fill, scores_of

USERS, COHORT, VISITS = 37, 6, 5
RATES = ("0", "0.01", "0.05", "0.1", "0.5")
MAIN_RATE, OTHER_RATES = "0.05", ("0.01", "0.1", "0.5")
SIZES = (5, 10, 20, USERS)
FIRST = 5
COMMON = (
    *("data=wisdm_watch", "model=autoencoder", "model.sizes=[256,128,64]", "partition=natural"),
    *("labels=client_rate", "validation=0"),
    *("engine=inline", "checkpoint.every=0"),
)
EPOCHS = "method.epochs=5"
# Chosen at rate 0.05 on 10 % of the training windows, seed 10: at 5 epochs, classifiers and mixture hardly learn.
SEMIPFL = (
    *("method=semipfl", EPOCHS, "method.base_epochs=30", "method.base_when=scored"),
    *("personalization=mixture", "personalization.epochs=100"),
)
# Labelled samples a step: a client of 1,296 windows takes about as many steps a visit as its autoencoder would.
FEDAVG = ("method=fedavg", EPOCHS, "method.batch_size=128")
AVERAGED = ("method=autoencoder", EPOCHS)
PFEDHN = ("method=pfedhn", "method.lr=0.05", "method.server_optimizer=adam", "method.server_lr=0.001")
Runs = dict[tuple[str, str], tuple[str, ...]]
WITH_LABELS: Runs = {
    ("semipfl", "weights"): (*SEMIPFL, "personalization.aggregate=weights"),
    ("semipfl", "finetune"): (*SEMIPFL, "personalization.aggregate=finetune"),
    ("semipfl", "both"): (*SEMIPFL, "personalization.aggregate=both"),
    ("semipfl", "nofilter"): (*SEMIPFL, "method.filter=none"),
    ("local", ""): (*AVERAGED, "method.head=client", "personalization=local_only"),
    ("local", "supervised"): (*FEDAVG, "personalization=local_only"),
    ("fedavg", ""): FEDAVG,
    ("fedavg", "finetune"): (*FEDAVG, "personalization=finetune"),
    ("fixmatch", ""): ("method=fixmatch", EPOCHS, "method.batch_size=16"),
    ("pfedhn", ""): (*PFEDHN, "method.score=trained"),
    ("pfedhn", "generated"): PFEDHN,
}
WITHOUT_LABELS: Runs = {
    ("semipfl", "uniform"): (*SEMIPFL, "personalization.aggregate=uniform"),
    ("fedavg", "autoencoder"): AVERAGED,
    ("server_only", ""): ("method=server_only", EPOCHS),
}
"""Nothing of these depends on the users' labels: run at rate 0, and repeated at the others."""
DEVICES = {
    "weights+slow": ("method.hardware=slow",),
    "weights+dropout": ("method.hardware=dropout",),
    "weights+late-drop": ("method.hardware=late", "method.stale=drop"),
    "weights+late-apply": ("method.hardware=late", "method.stale=apply"),
}
ONLY_AT_MAIN_RATE = (("local", "supervised"), ("fedavg", "finetune"), ("pfedhn", "generated"))
EVERY, TOLD_SEED = 8, 0
"""Rounds between two scores where the course of a run is told, and the seed for which it is: a score costs minutes."""


def schedule(users: int) -> tuple[int, tuple[str, ...]]:
    """Give the rounds that make five visits a user on average, and the overrides."""
    cohort = min(COHORT, users)
    rounds = math.ceil(VISITS * users / cohort)
    return rounds, (f"clients={users}", f"participation={cohort / users:.6f}", f"rounds={rounds}")


def cell(key: tuple[str, str], overrides: tuple[str, ...], rate: str, seed: int, users: int = USERS) -> Cell:
    """Give one run of the table."""
    rounds, budget = schedule(users)
    every = EVERY if seed == TOLD_SEED and is_course(key, rate, users) else rounds
    scored = (f"evaluation.every={rounds}", f"evaluation.personal_every={every}")
    given = (*COMMON, f"labels.rate={rate}", *budget, *scored, *overrides)
    return Cell(*key, f"clients={users};label_rate={rate}", seed, given)


def is_course(key: tuple[str, str], rate: str, users: int) -> bool:
    """Say whether a run is told round by round: SemiPFL with and without simulated devices."""
    return key[0] == "semipfl" and key[1] in ("weights", *DEVICES) and rate == MAIN_RATE and users == USERS


def cells(seeds: int, data: Path) -> Iterator[Cell]:
    """Give all runs, block by block over all seeds: main rate and no labels, other rates, fewer users, devices."""
    for block, seed in itertools.product((main_rows, other_rates, sizes, devices), range(seeds)):
        for one in block(seed):
            yield Cell(one.method, one.variant, one.setting, one.seed, (f"data.path={data}", *one.overrides))


def main_rows(seed: int) -> list[Cell]:
    """Give every method at the main rate, and what uses no labels."""
    found = [cell(key, overrides, MAIN_RATE, seed) for key, overrides in WITH_LABELS.items()]
    found += [cell(key, overrides, "0", seed) for key, overrides in WITHOUT_LABELS.items()]
    no_filter = ("semipfl", "nofilter")
    return [*found, cell(no_filter, WITH_LABELS[no_filter], "0", seed)]


def other_rates(seed: int) -> list[Cell]:
    """Give the methods at the other rates."""
    rows = {key: given for key, given in WITH_LABELS.items() if key not in ONLY_AT_MAIN_RATE}
    return [cell(key, given, rate, seed) for rate in OTHER_RATES for key, given in rows.items()]


def sizes(seed: int) -> list[Cell]:
    """Give SemiPFL with fewer users."""
    key = ("semipfl", "weights")
    return [cell(key, WITH_LABELS[key], MAIN_RATE, seed, users) for users in SIZES if users < USERS]


def devices(seed: int) -> list[Cell]:
    """Give SemiPFL on simulated devices."""
    given = WITH_LABELS["semipfl", "weights"]
    return [cell(("semipfl", name), (*given, *own), MAIN_RATE, seed) for name, own in DEVICES.items()]


def own_scores(record: dict[str, Any], metric: str) -> dict[int, float]:
    """Give each user's score of its own model, or of the global one where it has none."""
    clients = record["clients"].items()
    named = {int(k): v.get(f"personal_{metric}", v.get(metric)) for k, v in clients}
    return {k: float(named[k]) for k in sorted(named) if named[k] is not None}


def scores(chosen: Cell, summary: dict[str, Any]) -> list[Score]:
    """Give the scores of a run's last round, over users and of each; and of other rounds with the simulated time."""
    lines = (Path(summary["directory"]) / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    found = {name: value for round_, name, value in scores_of(summary) if round_ == "last"}
    f1 = own_scores(records[-1], "macro_f1")
    users = np.asarray(list(f1.values()))
    found |= {
        "personal_macro_f1": float(users.mean()),
        "personal_macro_f1_std": float(users.std()),
        "personal_macro_f1_p10": float(np.percentile(users, 10)),
        "personal_macro_f1_min": float(users.min()),
        "personal_macro_f1_first": fmean(f1[k] for k in f1 if k < FIRST),
        "personal_accuracy": fmean(own_scores(records[-1], "accuracy").values()),
        "users": float(len(f1)),
        **{f"personal_macro_f1_user{k}": value for k, value in f1.items()},
        **{name: sent(records, name) for name in ("bytes_up", "bytes_down")},
        "wall_seconds": float(summary["wall_seconds"]),
    }
    rows: list[Score] = [("last", name, value) for name, value in found.items()]
    simulated = 0.0
    for record in records:
        simulated += record["train"].get("simulated_seconds", 0.0)
        if chosen.method == "semipfl" and (of_round := own_scores(record, "macro_f1")):
            rows.append((str(record["round"]), "personal_macro_f1", fmean(of_round.values())))
            rows.append((str(record["round"]), "simulated_seconds", simulated))
    return rows


def sent(records: list[dict[str, Any]], name: str) -> float:
    """Give the bytes of a run as if only its last round had been scored: a score sends everything to everybody."""
    plain = [record[name] for record in records if not record["clients"]] or [0]
    extra = [record[name] - fmean(plain) for record in records[:-1] if record["clients"]]
    return float(sum(record[name] for record in records) - sum(extra))


def repeat_without_labels(out: Path) -> None:
    """Write the runs that no label touches at every rate; with no label at all, `weights` is `uniform`."""
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    there = {(row["method"], row["variant"], row["setting"], row["seed"]) for row in rows}
    once = [row for row in rows if row["setting"] == f"clients={USERS};label_rate=0"]
    new = []
    for row in once:
        key = (row["method"], row["variant"])
        copies = [(row["variant"], rate) for rate in RATES[1:]] if key in WITHOUT_LABELS else []
        if key == ("semipfl", "uniform"):
            copies.append(("weights", "0"))
        for variant, rate in copies:
            setting = f"clients={USERS};label_rate={rate}"
            if (row["method"], variant, setting, row["seed"]) not in there:
                new.append({**row, "variant": variant, "setting": setting})
    with out.open("a", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerows(new)


def main() -> None:
    """Run what is missing in the table."""
    parser = arguments("semipfl_wisdm", 3, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="wisdm_watch.npz, or the folder it lies in")
    parser.add_argument("--only", default="", help="only runs whose method/variant/setting/seed holds this text")
    options = parser.parse_args()
    data = options.data.resolve()
    chosen = [c for c in cells(options.seeds, data) if options.only in "/".join(c.key)]
    fill(chosen, options.out, options.jobs, scores)
    repeat_without_labels(options.out)
    command = f"python benchmarks/semipfl_wisdm.py --data FOLDER --seeds {options.seeds}"
    describe(options.out, command, [data / "wisdm_watch.npz" if data.is_dir() else data])


if __name__ == "__main__":
    main()
