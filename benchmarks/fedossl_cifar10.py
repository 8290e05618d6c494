"""FedoSSL against federated, local and centralised ORCA on CIFAR-10, and its ablations. Resumable.

Usage: python benchmarks/fedossl_cifar10.py --data FOLDER --weights FILE [--jobs 2] [--seeds 3] [--only TEXT]

The reduced protocol: 20,000 training pictures (the first 2,000 of each class), the official 10,000 test pictures,
ResNet of width 16 whose first three stages keep self-supervised weights (`fedssl pretrain`), 20 rounds of 2 epochs.
All runs share data, split, weights, rounds and local steps.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from published import COLUMNS, Cell, Score, arguments, describe, fill, scores_of

ROUNDS, EPOCHS = 20, 2
COMMON = (
    *("data=cifar10", "data.per_class=2000", "model=resnet", "model.width=16", "model.head=cosine"),
    *("partition=open_world", "labels=client_rate", "labels.rate=0.5", "validation=0", "engine=inline"),
    *("method.batch_size=128", "method.cache_views=4", "precision=auto"),
    *("evaluation.every=10", "evaluation.personal_on=all", "checkpoint.every=0"),
)
FEDERATED = (f"rounds={ROUNDS}", f"method.epochs={EPOCHS}")
Runs = dict[tuple[str, str], tuple[str, ...]]
# Local centroids a client: 16 of the 2,000 samples of a client here, as in the preset `fedossl_reduced`.
FEDOSSL = ("method=fedossl", "calibration.local=16")
MAIN: Runs = {
    ("fedossl", ""): FEDOSSL,
    ("orca", ""): ("method=orca",),
    ("orca", "local_head"): ("method=orca", "personalization=local_head"),
}
ABLATIONS: Runs = {
    ("fedossl", "cluster"): (*FEDOSSL, "method.uncertainty=off", "method.centroid_weight=0"),
    ("fedossl", "cluster+ce"): (*FEDOSSL, "method.uncertainty=off"),
    ("fedossl", "R=B"): (*FEDOSSL, "method.uncertainty=B"),
    ("fedossl", "R=C"): (*FEDOSSL, "method.uncertainty=C"),
}
BOUNDS: Runs = {
    ("orca", "local"): ("method=orca", "personalization=local_only"),
    ("orca", "central"): ("method=orca", "method.optimizer_state=keep", "partition.groups=1"),
}


def cells(seeds: int, data: Path, weights: Path) -> Iterator[Cell]:
    """Give all runs: the main comparison for all seeds, then ablations, then bounds, then many clients."""
    given = (*COMMON, f"data.path={data}", f"model.weights={weights}")
    for runs, seed in itertools.product((MAIN, ABLATIONS, BOUNDS), range(seeds)):
        for (method, variant), overrides in runs.items():
            clients = 1 if variant == "central" else 10
            # Alone or in one place, nobody has to wait for a turn.
            share = 1.0 if variant in ("central", "local") else 0.5
            who = (f"clients={clients}", f"participation={share}")
            # The centralised upper bound is set beside the federation of ten that it bounds.
            yield Cell(method, variant, "clients=10", seed, (*given, *FEDERATED, *who, *overrides))
    for (method, variant), overrides in MAIN.items():
        if not variant:
            who = ("clients=50", "participation=0.1")
            yield Cell(method, "", "clients=50", 0, (*given, *FEDERATED, *who, *overrides))


def scores(cell: Cell, summary: dict[str, Any]) -> list[Score]:
    """Give a run's scores; where no global model exists, the mean over clients stands under the plain name."""
    found = scores_of(summary)
    if cell.variant in ("local", "local_head"):
        found += [(round_, name.removeprefix("personal_"), value) for round_, name, value in found]
        found = list({(round_, name): (round_, name, value) for round_, name, value in found}.values())
    return found


def repeat_default(out: Path) -> None:
    """Give the ablation its row R=A, which is the default and so the same run."""
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    there = {(row["setting"], row["seed"]) for row in rows if row["variant"] == "R=A"}
    default = [row for row in rows if row["method"] == "fedossl" and not row["variant"]]
    new = [row for row in default if row["setting"] == "clients=10" and (row["setting"], row["seed"]) not in there]
    with out.open("a", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerows({**row, "variant": "R=A"} for row in new)


def main() -> None:
    """Run what is missing in the table."""
    parser = arguments("fedossl_cifar10", 3, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10, as `data.path` takes it")
    parser.add_argument("--weights", type=Path, required=True, help="file made by `fedssl pretrain`")
    parser.add_argument("--only", default="", help="only runs whose method/variant/setting holds this text")
    options = parser.parse_args()
    data, weights = options.data.resolve(), options.weights.resolve()
    chosen = [c for c in cells(options.seeds, data, weights) if options.only in "/".join(c.key)]
    fill(chosen, options.out, options.jobs, scores)
    repeat_default(options.out)
    files = [*sorted(data.glob("cifar10_t*.npz")), weights]
    command = f"python benchmarks/fedossl_cifar10.py --data FOLDER --weights FILE --seeds {options.seeds}"
    describe(options.out, command, files)


if __name__ == "__main__":
    main()
