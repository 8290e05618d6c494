"""The page of FedoSSL on CIFAR-10: tables, verdict and figure beside the paper's numbers.

Source of `PAPER` and its kin: Zhang et al., ICML 2023, tables 2, 3 and 5, in percent.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import NamedTuple

from long_form import Scores, Values, difference, fill, markdown, mean, percent
from matplotlib.figure import Figure

METRICS = {
    "All": "accuracy_all_paper",
    "All joint": "accuracy_all",
    "Seen": "accuracy_seen",
    "LU": "accuracy_locally_unseen",
    "GU": "accuracy_globally_unseen",
    "AU": "accuracy_unseen",
    "NMI": "nmi_unseen",
}
ABLATED = ("Seen", "AU", "LU", "GU", "All")
NO_LU_GU = "central"


class Row(NamedTuple):
    """A row of a table: our runs, and the paper's numbers by column, in percent."""

    name: str
    method: str
    variant: str
    paper: dict[str, float]


def _paper(all_: float, seen: float, lu: float, gu: float, au: float) -> dict[str, float]:
    return {"All": all_, "Seen": seen, "LU": lu, "GU": gu, "AU": au}


MAIN = (
    Row("Cen-O", "orca", "central", {"All": 78.26, "Seen": 86.63, "AU": 71.95}),
    Row("Local-O", "orca", "local", {"All": 65.98, "Seen": 79.57, "AU": 45.60}),
    Row("Fed-AO", "orca", "", _paper(69.46, 81.01, 89.38, 42.03, 52.15)),
    Row("Fed-RO", "orca", "local_head", _paper(71.72, 82.22, 89.84, 53.43, 55.96)),
    Row("FedoSSL", "fedossl", "", _paper(76.26, 84.29, 90.68, 59.69, 64.22)),
)
FED_AO, FED_RO, FEDOSSL = MAIN[2:]
WITH_CE = Row("+ L_cluster + L_ce", "fedossl", "cluster+ce", {"Seen": 83.13, "AU": 62.98, "All": 75.07})
# Reading A is the default, and so the run of the main table.
READINGS = {
    reading: Row(f"+ R, reading {reading}", "fedossl", variant, {})
    for reading, variant in {"A": "", "B": "R=B", "C": "R=C"}.items()
}
ABLATION = (
    FED_AO,
    Row("+ L_cluster", "fedossl", "cluster", {"Seen": 83.53, "AU": 52.24, "All": 71.01}),
    WITH_CE,
    *READINGS.values(),
    Row("+ R", "", "", FEDOSSL.paper),
)
FIFTY = (
    Row("Fed-AO", "orca", "", {"All": 70.22, "Seen": 83.34, "AU": 50.54}),
    Row("FedoSSL", "fedossl", "", {"All": 76.41, "Seen": 85.71, "AU": 62.46}),
)
TEN_CLIENTS, FIFTY_CLIENTS = "clients=10", "clients=50"
COLOURS = ("#555555", "#CC79A7", "#0072B2", "#009E73", "#D55E00")
MAIN_TEXT = """\
## Against the baselines

In percent, the last round: mean ± 95 % t-interval over {seeds}; the paper's numbers, from its table 2, without one.
All runs are in [fedossl_cifar10.csv](../results/fedossl_cifar10.csv)."""
DIFFERENCE_TEXT = "What FedoSSL adds, in points, paired by seed:"
ABLATION_TEXT = """\
## Ablation

Each row adds a term of the loss to the row above it, but the readings of R take each other's place. Paper: table 3,
LU and GU of the same runs from table 2; it does not say which reading its R is ([methods.md](methods.md#fedossl))."""
FIFTY_TEXT = """\
## 50 clients, 10 % a round

In percent, {seeds}. Each client has about a fifth of the pictures that it has above. Paper: table 5."""


def values(scores: Scores, row: Row, column: str, setting: str = TEN_CLIENTS) -> dict[int, float]:
    """Give a row's value of each seed. One client alone has no class that only some clients hold: no LU, no GU."""
    if row.variant == NO_LU_GU and column in ("LU", "GU"):
        return {}
    return scores.values(row.method, row.variant, setting, METRICS[column])


def comparison(scores: Scores, rows: tuple[Row, ...], columns: tuple[str, ...], setting: str = TEN_CLIENTS) -> str:
    """Give a table with a line of ours and a line of the paper's for each row, as far as there are numbers."""
    lines = []
    for row in rows:
        ours = [percent(mean(values(scores, row, column, setting))) for column in columns]
        theirs = [f"{row.paper[column]:.2f}" if column in row.paper else "" for column in columns]
        if row.method:
            lines.append([row.name, "here", *ours])
        if row.paper:
            lines.append(["" if row.method else row.name, "paper", *theirs])
    return markdown(["method", "", *columns], lines)


def differences(scores: Scores) -> str:
    """Give what FedoSSL adds to the two federated baselines, paired by seed."""
    columns = tuple(METRICS)
    lines = []
    for row in (FED_AO, FED_RO):
        found = [difference(values(scores, row, column), values(scores, FEDOSSL, column)) for column in columns]
        known = [column in row.paper for column in columns]
        theirs = [
            f"{FEDOSSL.paper[column] - row.paper[column]:+.2f}" if is_known else ""
            for column, is_known in zip(columns, known, strict=True)
        ]
        lines.append([f"FedoSSL - {row.name}", "here", *(percent(item, "+") for item in found)])
        lines.append(["", "paper", *theirs])
    return markdown(["difference", "", *columns], lines)


def verdict(before: Values, after: Values, column: str) -> str:
    """Say whether a score rose from `before` to `after` by at least 1 point and by more than its standard error."""
    gains = [100 * (after[seed] - before[seed]) for seed in sorted(before.keys() & after.keys())]
    rule = f"FedoSSL's mean {column} must exceed Fed-AO's by at least 1 point and by more than the standard error"
    if len(gains) < 2:
        return f"**{column}: not decided.** {rule}, which takes two seeds or more."
    gain, error = statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains))
    # The tolerance is for a gain of 1 point that is 0.99... in binary.
    outcome = "reproduced" if gain >= 1 - 1e-9 and gain > error else "not reproduced"
    return (
        f"**{column}: {outcome}.** {rule}. It differs by {gain:+.1f} points, standard error {error:.1f}, {len(gains)} "
        "seeds, paired."
    )


def order(scores: Scores, column: str) -> str:
    """Give the methods from best to worst, ours and the paper's."""
    ours = {row.name: mean(values(scores, row, column)).mean for row in MAIN}
    there = [name for name, value in ours.items() if not math.isnan(value)]
    theirs = {row.name: row.paper[column] for row in MAIN}
    here = " > ".join(sorted(there, key=lambda name: -ours[name])) or "no runs yet"
    in_paper = " > ".join(sorted(theirs, key=lambda name: -theirs[name]))
    return f"Order by {column} here: {here}; in the paper: {in_paper}."


def readings(scores: Scores) -> str:
    """Say which reading of R has the best AU over the seeds that all have, and what each adds to L_cluster + L_ce."""
    found = {reading: values(scores, row, "AU") for reading, row in READINGS.items()}
    found = {reading: of_seed for reading, of_seed in found.items() if of_seed}
    shared = set.intersection(*map(set, found.values())) if found else set()
    if len(found) < 2 or not shared:
        return "The readings of R cannot be compared yet."
    means = {reading: statistics.fmean(of_seed[seed] for seed in shared) for reading, of_seed in found.items()}
    best = max(means, key=lambda reading: means[reading])
    base = values(scores, WITH_CE, "AU")
    gains = {reading: percent(difference(base, of_seed), "+") or "no pair yet" for reading, of_seed in found.items()}
    paper = FEDOSSL.paper["AU"] - WITH_CE.paper["AU"]
    return (
        f"Of the readings of R, {best} has the highest mean AU, {100 * means[best]:.1f}. What R adds to L_cluster + "
        f"L_ce in AU, paired by seed: {', '.join(f'{name} {gain}' for name, gain in gains.items())}; in the paper "
        f"{paper:+.2f}."
    )


def figure(scores: Scores) -> Figure:
    """Draw Seen, LU and GU of all methods with their intervals."""
    columns = ("Seen", "LU", "GU")
    drawn = Figure(figsize=(8, 3.4), layout="constrained")
    axes = drawn.subplots()
    for number, (colour, row) in enumerate(zip(COLOURS, MAIN, strict=True)):
        found = [mean(values(scores, row, column)) for column in columns]
        places = [place + 0.14 * (number - 2) for place in range(len(columns))]
        means, halves = [100 * item.mean for item in found], [100 * item.half for item in found]
        axes.errorbar(places, means, yerr=halves, fmt="o", capsize=4, color=colour, label=row.name)
    names = ("seen classes", "unseen,\nheld by every client (LU)", "unseen,\nheld by some clients (GU)")
    axes.set_xticks(range(len(columns)), names)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"CIFAR-10, 10 clients: last round, mean and 95 % interval over {seeds(scores, MAIN)}", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return drawn


def seeds(scores: Scores, rows: tuple[Row, ...], setting: str = TEN_CLIENTS) -> str:
    """Say over how many seeds the rows' runs go, those that are missing left out."""
    counts = {len(values(scores, row, "AU", setting)) for row in rows if row.method} - {0} or {0}
    low, high = min(counts), max(counts)
    return f"{low} seed{'' if low == 1 else 's'}" if low == high else f"{low} to {high} seeds"


def page(scores: Scores) -> list[str]:
    """Give the parts of the page that the table makes."""
    columns = tuple(METRICS)
    verdicts = [
        verdict(values(scores, FED_AO, column), values(scores, FEDOSSL, column), column) for column in ("AU", "All")
    ]
    orders = [order(scores, column) for column in ("AU", "All")]
    return [
        MAIN_TEXT.format(seeds=seeds(scores, MAIN)),
        comparison(scores, MAIN, columns),
        DIFFERENCE_TEXT,
        differences(scores),
        "\n".join(f"- {line}" for line in (*verdicts, *orders)),
        "![Seen, locally unseen and globally unseen accuracy by method](images/fedossl_cifar10.png)",
        ABLATION_TEXT,
        comparison(scores, ABLATION, ABLATED),
        readings(scores),
        FIFTY_TEXT.format(seeds=seeds(scores, FIFTY, FIFTY_CLIENTS)),
        comparison(scores, FIFTY, columns, FIFTY_CLIENTS),
    ]


def publish(scores: Scores, document: Path, images: Path) -> None:
    """Fill the document and draw its figure."""
    figure(scores).savefig(images / "fedossl_cifar10.png", dpi=150)
    fill(document, page(scores))
