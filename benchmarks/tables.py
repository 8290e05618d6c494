"""Puts the published tables into README.md and docs/*.md and draws their figures, from results/*.csv and speed.csv.

Usage: python benchmarks/tables.py
"""

from __future__ import annotations

from pathlib import Path

import fedossl_table
import fedsto_table
import pandas as pd
import semipfl_table
import small_table
from long_form import Scores, difference, fill, mean, percent
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [(labels, partition) for labels in ("10", "40") for partition in ("iid", "dirichlet-0.1")]
ACCURACY = """\
Accuracy in percent on the 1,000 test pictures of the Fashion-MNIST subset after 50 rounds: LeNet, 10 clients, equal
numbers of local steps; mean and 95 % t-interval over {seeds} seeds from 0 on, differences paired by seed.
`python benchmarks/baselines.py --seeds {seeds}` makes [results/baselines.csv](results/baselines.csv), and
`python benchmarks/tables.py` this page."""
HOOKS = """\
What the hooks add under Dirichlet 0.1, in points. `temperature` divides all logits by one number, so no prediction and
no accuracy changes. Own accuracy is the mean over clients on their own test samples."""
SPEED = """\
Speed as ratios (`make bench`; systems alternated, medians of three; more is better). Flower is its simulation runtime
with the same two apps, bare is a loop in plain PyTorch."""
METHODS = {"fedavg": "FedAvg", "fixmatch": "FedAvg + FixMatch"}


class Table:
    """The baselines by method, labels, partition and metric; values are maps of seed to number."""

    def __init__(self, path: Path) -> None:
        self.scores = Scores(path)

    def values(self, method: str, labels: str, partition: str, metric: str, variant: str = "") -> dict[int, float]:
        """Give the last round's value of each seed."""
        setting = f"clients=10;labels={labels};partition={partition}"
        return self.scores.values(method, variant, setting, metric)


def lead(table: Table) -> str:
    """Give the table of FixMatch against FedAvg."""
    lines = [
        "| labels a class | partition | FedAvg | FedAvg + FixMatch | paired difference | FedAvg, every label |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for labels, partition in SETTINGS:
        one, two = (table.values(method, labels, partition, "accuracy") for method in METHODS)
        every = table.values("fedavg", "all", partition, "accuracy")
        numbers = [percent(mean(one)), percent(mean(two)), percent(difference(one, two)), percent(mean(every))]
        lines.append(f"| {labels} | {partition} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def hooks(table: Table) -> str:
    """Give the table of what calibration and personalization add under Dirichlet 0.1."""
    lines = [
        "| method, labels a class | ECE before | ECE, `temperature` | difference | own accuracy, global model "
        "| own accuracy, `finetune` | difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    skew = "dirichlet-0.1"
    for labels in ("10", "40"):
        for method, name in METHODS.items():
            before, after, whole, tuned = (
                table.values(method, labels, skew, metric)
                for metric in ("uncalibrated_ece", "ece", "client_accuracy", "personal_accuracy")
            )
            parts = [mean(before), mean(after), difference(before, after)]
            parts += [mean(whole), mean(tuned), difference(whole, tuned)]
            lines.append(f"| {name}, {labels} | {' | '.join(map(percent, parts))} |")
    whole = table.values("fixmatch", "40", skew, "client_accuracy")
    own = table.values("fixmatch", "40", skew, "personal_accuracy", "local_head")
    lines.append(
        f"\n`local_head` (FixMatch, 40 labels a class): own accuracy {percent(mean(own))}, "
        f"against the global model {percent(difference(whole, own))}."
    )
    return "\n".join(lines)


def figure(table: Table) -> Figure:
    """Draw the accuracies with their intervals."""
    drawn = Figure(figsize=(8, 3.4), layout="constrained")
    axes = drawn.subplots()
    for offset, colour, (method, name) in zip((-0.15, 0.15), ("#0072B2", "#D55E00"), METHODS.items(), strict=True):
        found = [mean(table.values(method, *setting, "accuracy")) for setting in SETTINGS]
        places = [place + offset for place in range(len(SETTINGS))]
        means, halves = [100 * item.mean for item in found], [100 * item.half for item in found]
        axes.errorbar(places, means, yerr=halves, fmt="o", capsize=4, color=colour, label=name)
    for place, (_, partition) in enumerate(SETTINGS):
        every = 100 * mean(table.values("fedavg", "all", partition, "accuracy")).mean
        label = "FedAvg, every label" if place == 0 else None
        axes.plot([place - 0.35, place + 0.35], [every, every], color="#555555", linestyle="--", label=label)
    axes.set_xticks(range(len(SETTINGS)), [f"{labels} labels a class\n{partition}" for labels, partition in SETTINGS])
    axes.set_ylabel("test accuracy (%)")
    seeds = len(table.values("fedavg", "10", "iid", "accuracy"))
    axes.set_title(
        f"Fashion-MNIST subset, 10 clients: last round, mean and 95 % interval over {seeds} seeds", fontsize=10
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return drawn


def speed(path: Path) -> str:
    """Give the table of ratios."""
    rows = pd.read_csv(path, dtype=str)
    lines = ["| goal | measured | ratio (spread) | pass | aim | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows.to_dict("records"):
        lines.append(
            f"| {row['goal']} | {row['what']} | {row['ratio']} ({row['spread']}) | {row['pass']} | {row['aim']} "
            f"| {row['verdict']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Fill README.md and the pages of those methods whose table is there."""
    table = Table(ROOT / "results" / "baselines.csv")
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    figure(table).savefig(images / "baselines.png", dpi=150)
    seeds = len(table.values("fedavg", "10", "iid", "accuracy"))
    parts = [
        ACCURACY.format(seeds=seeds),
        lead(table),
        "![Accuracy by setting](docs/images/baselines.png)",
        HOOKS,
        hooks(table),
    ]
    if (ROOT / "results" / "fedossl_fashion_small.csv").exists():
        parts += small_table.page(Scores(ROOT / "results" / "fedossl_fashion_small.csv"))
    fill(ROOT / "README.md", parts)
    if (ROOT / "benchmarks" / "speed.csv").exists():
        fill(ROOT / "docs" / "performance.md", [SPEED, speed(ROOT / "benchmarks" / "speed.csv")])
    if (ROOT / "results" / "fedossl_cifar10.csv").exists():
        fedossl_table.publish(Scores(ROOT / "results" / "fedossl_cifar10.csv"), ROOT / "docs" / "fedossl.md", images)
    if (ROOT / "results" / "semipfl_wisdm.csv").exists():
        semipfl_table.publish(ROOT / "results" / "semipfl_wisdm.csv", ROOT / "docs" / "semipfl.md", images)
    if (ROOT / "results" / "fedsto_roadsign.csv").exists():
        fedsto_table.publish(ROOT / "results" / "fedsto_roadsign.csv", ROOT / "docs" / "fedsto.md", images)


if __name__ == "__main__":
    main()
