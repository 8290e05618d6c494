"""The baselines table: FixMatch against FedAvg on the same labels, and what the hooks add. Resumable.

Usage: python benchmarks/baselines.py [--jobs 2] [--seeds 5] [--out results/baselines.csv]

All runs share model, rounds and number of local steps; every run is calibrated by temperature and finetuned at the
end, which changes neither weights nor training, so that one run gives the scores before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from published import ROOT, Cell, Score, arguments, describe, fill, scores_of

COMMON = [
    *("data=fashion_small", "model=lenet", "clients=10", "rounds=50", "engine=inline"),
    *("evaluation.every=5", "checkpoint.every=0", "calibration=temperature"),
]
STEPS = {"fixmatch": ["method.batch_size=8", "method.ratio=2"], "fedavg": ["method.batch_size=16"]}
PARTITIONS = {"iid": ["partition=iid"], "dirichlet-0.1": ["partition=dirichlet", "partition.alpha=0.1"]}


def cell(method: str, variant: str, partition: str, labels: str, seed: int) -> Cell:
    """Give one run of the table."""
    rule = ["labels=client_rate", "labels.rate=1.0"]
    if labels != "all":
        rule = ["labels=total_count", f"labels.count={labels}"]
    own = "local_head" if variant == "local_head" else "finetune"
    given = [f"method={method}", *STEPS[method], f"personalization={own}"]
    setting = f"clients=10;labels={labels};partition={partition}"
    return Cell(method, variant, setting, seed, (*COMMON, *PARTITIONS[partition], *rule, *given))


def cells(seeds: int) -> Iterator[Cell]:
    """Give all runs, one seed after the other, so that a table begun is a table."""
    for seed in range(seeds):
        for partition in PARTITIONS:
            for labels in ("10", "40"):
                yield cell("fedavg", "", partition, labels, seed)
                yield cell("fixmatch", "", partition, labels, seed)
            yield cell("fedavg", "", partition, "all", seed)
        yield cell("fixmatch", "local_head", "dirichlet-0.1", "40", seed)


def scores(chosen: Cell, summary: dict[str, Any]) -> list[Score]:
    """Give a run's scores, with the clients' mean of the global model where there is one."""
    found = scores_of(summary)
    if chosen.variant != "local_head":
        found.append(("last", "client_accuracy", summary["clients"]["mean"]))
    return found


def main() -> None:
    """Run what is missing in the table."""
    options = arguments("baselines", 5, __doc__).parse_args()
    fill(list(cells(options.seeds)), options.out, options.jobs, scores)
    data = [ROOT / "fedssl/data/sources/fashion_small.npz"]
    describe(options.out, f"python benchmarks/baselines.py --seeds {options.seeds}", data)


if __name__ == "__main__":
    main()
