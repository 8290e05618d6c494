"""The page of SemiPFL on WISDM's watch: scores by labels, users and devices, and what was expected of them.

No result table of the paper was at hand: the rows are ours alone. What its abstract claims is put as questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from long_form import Scores, Values, difference, fill, markdown, mean, percent
from matplotlib.figure import Figure
from semipfl_wisdm import TOLD_SEED

F1 = "personal_macro_f1"
USERS, MAIN_RATE = 37, "0.05"
RATES = ("0", "0.01", "0.05", "0.1", "0.5")
SIZES = (5, 10, 20, 37)
DRAWS = 2000
COLUMNS = {
    "macro F1": F1,
    "accuracy": "personal_accuracy",
    "F1, lowest tenth": f"{F1}_p10",
    "F1, lowest user": f"{F1}_min",
    "F1, deviation over users": f"{F1}_std",
}


class Row(NamedTuple):
    """A method of the tables."""

    name: str
    method: str
    variant: str = ""


SEMIPFL = Row("SemiPFL", "semipfl", "weights")
UNIFORM = Row("SemiPFL, uniform weights", "semipfl", "uniform")
NO_FILTER = Row("SemiPFL, no filter", "semipfl", "nofilter")
LOCAL = Row("local: autoencoder and head", "local")
SERVER = Row("server only", "server_only")
VARIANTS = (
    Row("SemiPFL, finetune", "semipfl", "finetune"),
    Row("SemiPFL, both", "semipfl", "both"),
    UNIFORM,
    NO_FILTER,
)
BASELINES = (
    LOCAL,
    Row("local: supervised", "local", "supervised"),
    Row("FedAvg", "fedavg"),
    Row("FedAvg + fine-tuning", "fedavg", "finetune"),
    Row("FedAvg of the autoencoder", "fedavg", "autoencoder"),
    Row("FedAvg + FixMatch", "fixmatch"),
    Row("pFedHN", "pfedhn"),
    Row("pFedHN, as generated", "pfedhn", "generated"),
    SERVER,
)
ROWS = (SEMIPFL, *VARIANTS, *BASELINES)
DEVICES = {
    "none": "weights",
    "slow": "weights+slow",
    "drop-out": "weights+dropout",
    "late, dropped": "weights+late-drop",
    "late, applied": "weights+late-apply",
}
DRAWN = (SEMIPFL, LOCAL, Row("FedAvg", "fedavg"), Row("pFedHN", "pfedhn"), SERVER)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555")
RATES_TEXT = """\
## By labels

Macro F1 in percent, mean over the 37 users, each on its own later recordings; last round, mean ± 95 % t-interval over
{seeds}. All runs are in [semipfl_wisdm.csv](../results/semipfl_wisdm.csv). Without labels the variants of SemiPFL that
use them are its uniform mixture."""
USERS_TEXT = """\
## Over users, {rate} of the windows labelled

In percent, as above."""
PAIRED_TEXT = """\
## What SemiPFL adds

Macro F1 in points, paired by user: mean over users of each one's mean over seeds, and a 95 % bootstrap interval over
users."""
SIZES_TEXT = """\
## More users

Macro F1 in percent with {rate} of the windows labelled, five visits a user whatever their number."""
DEVICES_TEXT = """\
## Devices

Simulated devices (this project's scenarios, not the paper's), {rate} of the windows labelled: macro F1 in percent, and
simulated seconds of the whole run."""
QUESTIONS_TEXT = "## What was expected"


def setting(rate: str = MAIN_RATE, users: int = USERS) -> str:
    """Give the setting of a run, as the table writes it."""
    return f"clients={users};label_rate={rate}"


def share(rate: str) -> str:
    """Give a rate in percent."""
    return f"{100 * float(rate):g} %"


def by_rate(scores: Scores) -> str:
    """Give the table of macro F1 by method and label rate."""
    lines = [
        [row.name, *(percent(mean(scores.values(row.method, row.variant, setting(rate), F1))) for rate in RATES)]
        for row in ROWS
    ]
    return markdown(["method", *map(share, RATES)], [line for line in lines if any(line[1:])])


def over_users(scores: Scores) -> str:
    """Give the table of scores over users at the main label rate."""
    lines = []
    for row in ROWS:
        found = [mean(scores.values(row.method, row.variant, setting(), metric)) for metric in COLUMNS.values()]
        lines.append([row.name, *map(percent, found), traffic(scores, row)])
    return markdown(["method", *COLUMNS, "MB a user"], [line for line in lines if any(line[1:])])


def traffic(scores: Scores, row: Row) -> str:
    """Give the megabytes that a user got and sent in the whole run, scoring included; nothing without runs."""
    ways = [scores.values(row.method, row.variant, setting(), metric) for metric in ("bytes_down", "bytes_up")]
    return f"{sum(mean(way).mean for way in ways) / USERS / 1e6:.1f}" if all(ways) else ""


def of_users(scores: Scores, row: Row, rate: str = MAIN_RATE) -> dict[int, float]:
    """Give each user's mean over seeds."""
    rows, start = scores.rows, f"{F1}_user"
    own = rows[(rows.method == row.method) & (rows.variant == row.variant) & (rows.setting == setting(rate))]
    own = own[own.metric.str.startswith(start)]
    found: dict[int, list[float]] = {}
    for metric, value in zip(own.metric, own.value, strict=True):
        found.setdefault(int(metric.removeprefix(start)), []).append(float(value))
    return {user: sum(values) / len(values) for user, values in sorted(found.items())}


def bootstrap(differences: Sequence[float]) -> tuple[float, float]:
    """Give the bounds of the 95 % bootstrap interval of a mean; NaN for none."""
    if not len(differences):
        return math.nan, math.nan
    drawn = np.random.default_rng(0).choice(np.asarray(differences), (DRAWS, len(differences)))
    low, high = np.percentile(drawn.mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def paired(a: Values, b: Values) -> tuple[float, float, float]:
    """Give the mean of `b - a` over the users that both have, and its bootstrap interval."""
    shared = [b[user] - a[user] for user in sorted(a.keys() & b.keys())]
    return (sum(shared) / len(shared) if shared else math.nan, *bootstrap(shared))


def points(found: tuple[float, float, float]) -> str:
    """Give a difference with its interval in points."""
    value, low, high = (100 * part for part in found)
    return "" if math.isnan(value) else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def differences(scores: Scores) -> str:
    """Give what SemiPFL adds to each baseline and variant, by label rate."""
    lines = []
    for row in (*BASELINES, *VARIANTS):
        cells = [points(paired(of_users(scores, row, rate), of_users(scores, SEMIPFL, rate))) for rate in RATES]
        lines.append([row.name, *cells])
    return markdown(["SemiPFL less", *map(share, RATES)], [line for line in lines if any(line[1:])])


def by_size(scores: Scores) -> str:
    """Give SemiPFL's scores by the number of users: of all, and of the first five, who are in every run."""
    lines = []
    for name, metric in (("all users", F1), ("the first five", f"{F1}_first")):
        found = [mean(scores.values("semipfl", "weights", setting(users=size), metric)) for size in SIZES]
        lines.append([name, *map(percent, found)])
    return markdown(["macro F1 of", *(f"{size} users" for size in SIZES)], lines)


def course(rows: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Give macro F1 and simulated minutes by round, mean over seeds: columns `round`, `f1`, `minutes`."""
    numbered = rows[rows["round"].str.isdigit()]
    chosen = numbered[
        (numbered.method == "semipfl") & (numbered.variant == variant) & (numbered.setting == setting())
    ].assign(round=lambda table: table["round"].astype(int), value=lambda table: table["value"].astype(float))
    means = chosen.pivot_table(index="round", columns="metric", values="value")
    means = means.reindex(columns=[F1, "simulated_seconds"]).reset_index()
    return pd.DataFrame({"round": means["round"], "f1": means[F1], "minutes": means["simulated_seconds"] / 60})


def by_device(scores: Scores, rows: pd.DataFrame) -> str:
    """Give the table of scenarios."""
    lines = []
    plain = scores.values("semipfl", DEVICES["none"], setting(), F1)
    for name, variant in DEVICES.items():
        values, found = scores.values("semipfl", variant, setting(), F1), course(rows, variant)
        seconds = f"{60 * found['minutes'].iloc[-1]:.1f}" if len(found) else ""
        lost = "" if variant == DEVICES["none"] else percent(difference(plain, values), "+")
        lines.append([name, percent(mean(values)), lost, seconds])
    return markdown(["devices", "macro F1", "difference", "simulated seconds"], lines)


def verdict(text: str, found: Sequence[tuple[float, float, float]]) -> str:
    """Say yes if the intervals of all differences are at or above 0, no if one is below; else it is not decided."""
    known = [one for one in found if not math.isnan(one[0])]
    if not known:
        return f"- {text}: no runs yet."
    below = [one for one in known if one[2] < 0]
    outcome = "no" if below else "yes" if all(one[1] >= 0 for one in known) else "not decided"
    return f"- {text}: **{outcome}**; least difference {points(min(below or known))} points."


def questions(scores: Scores) -> str:
    """Give the answers to what was expected before the runs."""

    def users(row: Row, rate: str = MAIN_RATE) -> dict[int, float]:
        return of_users(scores, row, rate)

    steps = [paired(users(SEMIPFL, a), users(SEMIPFL, b)) for a, b in pairwise(RATES[1:])]
    firsts = [scores.values("semipfl", "weights", setting(users=size), f"{F1}_first") for size in SIZES]
    grown = [difference(a, b) for a, b in pairwise(firsts)]
    half = [0.0 if math.isnan(one.half) else one.half for one in grown]
    few = [paired(users(LOCAL, rate), users(SEMIPFL, rate)) for rate in RATES[1:3]]
    return "\n".join(
        [
            verdict("SemiPFL is at least as good as each user alone, at 1 % and 5 % of labels", few),
            verdict(
                "A user's labels help: learned weights against uniform ones", [paired(users(UNIFORM), users(SEMIPFL))]
            ),
            verdict("More labels never hurt, from 1 % to 50 %", steps),
            verdict(
                "The first five users gain as others join",
                [(one.mean, one.mean - h, one.mean + h) for one, h in zip(grown, half, strict=True)],
            ),
            verdict("The filter helps", [paired(users(NO_FILTER), users(SEMIPFL))]),
            verdict(
                "Users without labels are better off than with the server's model",
                [paired(users(SERVER, "0"), users(UNIFORM, "0"))],
            ),
        ]
    )


def figure(scores: Scores, rows: pd.DataFrame) -> Figure:
    """Draw macro F1 by label rate, and over simulated time."""
    drawn = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for colour, row in zip(COLOURS, DRAWN, strict=True):
        found = [mean(scores.values(row.method, row.variant, setting(rate), F1)) for rate in RATES]
        means, halves = [100 * one.mean for one in found], [100 * one.half for one in found]
        left.errorbar(range(len(RATES)), means, yerr=halves, fmt="o-", capsize=3, color=colour, label=row.name)
    left.set_xticks(range(len(RATES)), [share(rate) for rate in RATES])
    left.set_xlabel("labelled windows of a user")
    left.set_title(f"37 users, last round: mean and 95 % interval over {seeds(scores)}", fontsize=9)
    for colour, (name, variant) in zip(COLOURS, DEVICES.items(), strict=True):
        found_course = course(rows[rows.seed == str(TOLD_SEED)], variant)
        right.plot(found_course["minutes"], 100 * found_course["f1"], "o-", markersize=3, color=colour, label=name)
    right.set_xlabel("simulated minutes")
    right.set_title(f"SemiPFL on simulated devices, {share(MAIN_RATE)} labelled: seed {TOLD_SEED}", fontsize=9)
    for axes in (left, right):
        axes.set_ylabel("macro F1 of users' own models (%)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7)
    return drawn


def seeds(scores: Scores) -> str:
    """Say over how many seeds SemiPFL's runs at the main rate go."""
    count = len(scores.values("semipfl", "weights", setting(), F1))
    return f"{count} seed{'' if count == 1 else 's'}"


def page(scores: Scores, rows: pd.DataFrame) -> list[str]:
    """Give the parts of the page that the table makes."""
    rate = share(MAIN_RATE)
    return [
        RATES_TEXT.format(seeds=seeds(scores)),
        by_rate(scores),
        "![Macro F1 by labels and over simulated time](images/semipfl_wisdm.png)",
        USERS_TEXT.format(rate=rate),
        over_users(scores),
        PAIRED_TEXT,
        differences(scores),
        SIZES_TEXT.format(rate=rate),
        by_size(scores),
        DEVICES_TEXT.format(rate=rate),
        by_device(scores, rows),
        QUESTIONS_TEXT,
        questions(scores),
    ]


def publish(table: Path, document: Path, images: Path) -> None:
    """Fill the document and draw its figure."""
    scores, rows = Scores(table), pd.read_csv(table, keep_default_na=False, dtype=str)
    figure(scores, rows).savefig(images / "semipfl_wisdm.png", dpi=150)
    fill(document, page(scores, rows))
