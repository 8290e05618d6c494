"""The page of FedSTO on road signs: scores by weather beside the paper's on BDD100K, gains, and what was expected.

Paper: Kim et al., NeurIPS 2023, tables 1 to 3 (YOLOv5-L on BDD100K): other pictures, network and rounds, so the order
of the methods is what can be compared, not the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pandas as pd
from long_form import Scores, Values, difference, fill, markdown, mean, percent
from matplotlib.figure import Figure

from fedssl.report.intervals import Interval

WEATHERS = ("cloudy", "overcast", "rainy", "snowy")
TOTAL, LATE, CLIENTS = "map50_total", "late_map50_total", "map50_clients"
PAPER, LATE_PAPER = "map50_paper", "late_map50_paper"
COLUMNS = (*(f"map50_{weather}" for weather in WEATHERS), PAPER, LATE_PAPER, TOTAL, LATE, CLIENTS)
HEAD = (*WEATHERS, "paper's total", "late paper's total", "total", "late total", "clients' three")
RAINY = "map50_rainy"
GAINS = (LATE_PAPER, TOTAL, LATE, CLIENTS)
OF_PAPER = ("map50_cloudy", *(f"personal_map50_{weather}" for weather in WEATHERS[1:]))
"""Whose mean is `PAPER`: the global model's score in the server's weather, the clients' own models' in theirs."""
FEW, MANY = 3, 12
"""Clients of the tables, and of the runs with many."""
NUMBER = 5
"""Columns of the paper's tables: the weathers and their mean."""


class Row(NamedTuple):
    """A method of the tables, and the paper's mAP at IoU 0.5 of it by weather, non-IID and IID, and the totals."""

    name: str
    method: str
    variant: str = ""
    noniid: tuple[float, ...] = ()
    iid: tuple[float, ...] = ()


FEDSTO = Row("FedSTO", "fedsto", "", (0.596, 0.607, 0.590, 0.580, 0.593), (0.591, 0.634, 0.614, 0.595, 0.609))
SERVER = Row(
    "server's labels alone", "server_only", "", (0.540, 0.545, 0.484, 0.474, 0.511), (0.528, 0.545, 0.533, 0.510, 0.529)
)
SSFL = Row("SSFL, local average", "ssfl", "", (0.560, 0.566, 0.553, 0.553, 0.558), (0.572, 0.588, 0.593, 0.610, 0.591))
GLOBAL = Row(
    "SSFL, global model labels",
    "ssfl",
    "global_labeller",
    (0.555, 0.560, 0.497, 0.488, 0.525),
    (0.540, 0.551, 0.576, 0.542, 0.552),
)
SELECTIVE = Row(
    "FedSTO, phase 1 alone",
    "fedsto",
    "selective_only",
    (0.571, 0.583, 0.557, 0.556, 0.567),
    (0.576, 0.578, 0.594, 0.599, 0.587),
)
NO_ORTHOGONAL = Row("FedSTO without the penalty", "fedsto", "no_orthogonal")
ALL_LABELS = Row(
    "all labels, federated", "all_labels", "", (0.627, 0.614, 0.607, 0.585, 0.608), (0.635, 0.612, 0.608, 0.595, 0.613)
)
CENTRAL = Row(
    "all labels, central",
    "all_labels",
    "central",
    (0.600, 0.604, 0.617, 0.597, 0.605),
    (0.600, 0.604, 0.617, 0.597, 0.605),
)
FEDADAM = Row("SSFL, FedAdam", "ssfl", "fedadam")
FEDBN = Row("SSFL, FedBN (clients' own models)", "ssfl", "fedbn")
AGAIN = Row("FedSTO, other first weights", "fedsto", "again")
OTHERS = (
    AGAIN,
    Row("FedSTO, last steps", "fedsto", "last_step"),
    Row("FedSTO, clients' last steps", "fedsto", "clients_last_step"),
    Row("SSFL, local average, clients' last steps", "ssfl", "clients_last_step"),
    Row("all labels, federated, clients' last steps", "all_labels", "clients_last_step"),
    Row("server's labels alone, warm-up of 60 epochs", "server_only", "warm_up_60"),
)
STARTS = {"the warm-up": FEDSTO, "the warm-up, other first weights": AGAIN}
"""Warm-ups, by the runs that tell of them."""
UNTRAINED = (SERVER, CENTRAL, OTHERS[-1])
"""Whose clients do not train: their model is the global one."""
ROWS = (SERVER, GLOBAL, SSFL, FEDADAM, FEDBN, SELECTIVE, NO_ORTHOGONAL, FEDSTO, ALL_LABELS, CENTRAL)
DRAWN = (FEDSTO, SSFL, SELECTIVE, SERVER, ALL_LABELS)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#555555", "#CC79A7")
SCORES_TEXT = """\
## {weather} clients

mAP at IoU 0.5 in percent on the same test pictures in each weather, global model of the last round, mean ± 95 %
t-interval over {seeds}; *italics*: the paper's on BDD100K. `total`: mean over the four weathers, of the global model;
FedBN has none. `paper's total`: the same mean as the paper takes it, cloudy by the global model, the others by the
models that clients trained in that round, or the global model's where they do not train. `late`: mean over rounds 30,
35 and 40, which jumps about less. `clients' three`: mean over the clients' weathers, of the global model, for FedBN of
the clients' own. All runs are in [fedsto_roadsign.csv](../results/fedsto_roadsign.csv)."""
GAINS_TEXT = """\
Differences of FedSTO in points, paired by seed."""
AGAIN_TEXT = """
Rows that began with the other first weights are paired with FedSTO's runs from those:
{}."""
COSTS_TEXT = "Megabytes of all clients in 40 rounds, and what the clients' pseudo-boxes were worth in the last one:"
QUESTIONS_TEXT = """\
### What was expected

Differences in points, paired by seed, of late means: `paper's`, with the models that clients trained, and of global
models. `yes` and `no` where the interval lies on one side of 0."""
MANY_TEXT = """\
### 12 clients, four of each weather

One seed. The paper's runs with 20 clients have other data; its FedSTO is ahead of FedAvg by 5.0 points on labelled and
2.7 on unlabelled pictures (table 6)."""
KINDS = {"noniid": "Each weather at one of the", "iid": "All weathers at all"}


def setting(weather: str, clients: int = FEW) -> str:
    """Give the axis values of runs."""
    return f"clients={clients};weather={weather}"


def of(scores: Scores, row: Row, where: str, metric: str) -> Values:
    """Give the value of each seed that FedSTO has; of clients' own models where no global one is, but for totals."""
    if metric in (PAPER, LATE_PAPER):
        found = _papers_total(scores, row, where, metric.removesuffix(PAPER))
    else:
        found = _values(scores, row, where, metric)
        if not found and metric not in (TOTAL, LATE):
            found = scores.values(row.method, row.variant, where, f"personal_{metric}")
    counted = scores.values(FEDSTO.method, FEDSTO.variant, where, TOTAL)
    return {seed: value for seed, value in found.items() if seed in counted}


def _values(scores: Scores, row: Row, where: str, metric: str) -> dict[int, float]:
    chosen = metric.replace("personal_", "") if row in UNTRAINED else metric
    return scores.values(row.method, row.variant, where, chosen)


def _papers_total(scores: Scores, row: Row, where: str, prefix: str) -> dict[int, float]:
    parts = [_values(scores, row, where, prefix + name) for name in OF_PAPER]
    shared = set.intersection(*(set(part) for part in parts))
    return {seed: fmean(part[seed] for part in parts) for seed in shared}


def named(scores: Scores, row: Row, where: str) -> str:
    """Give the row's name, with its seeds where they are fewer than FedSTO's."""
    counted = scores.seeds(FEDSTO.method, FEDSTO.variant, where)
    found = sorted(counted & scores.seeds(row.method, row.variant, where))
    if len(found) == len(counted):
        return row.name
    return f"{row.name} (seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))})"


def by_weather(scores: Scores, weather: str) -> str:
    """Give the table of mAP by method and weather, with the start that all have and the paper's numbers."""
    where = setting(weather)
    lines = []
    for name, row in STARTS.items():
        begun = [percent(mean(start(scores, where, metric, row))) for metric in COLUMNS]
        lines += [[f"after {name}", *begun]] if any(begun) else []
    for row in (*ROWS, *OTHERS):
        cells = [percent(mean(of(scores, row, where, name))) for name in COLUMNS]
        if any(cells):
            paper = row.noniid if weather == "noniid" else row.iid
            printed = [f" *{100 * value:.1f}*" for value in paper] or [""] * NUMBER
            told = [cell + own for cell, own in zip(cells, [*printed, "", "", "", ""], strict=True)]
            lines.append([named(scores, row, where), *told])
    return markdown(["method", *HEAD], lines)


def start(scores: Scores, where: str, metric: str, row: Row = FEDSTO) -> Values:
    """Give the warm-up's value of each seed; there is one model yet, and one evaluation."""
    one = TOTAL if metric in (LATE, LATE_PAPER) else metric.removeprefix("late_")
    return scores.values(row.method, row.variant, where, f"warm_up_{one}")


def many(scores: Scores, weather: str) -> str:
    """Give the table of runs with many clients; nothing without any."""
    where = setting(weather, MANY)
    lines = [["after the warm-up", *(percent(mean(start(scores, where, name))) for name in COLUMNS)]]
    lines += [[row.name, *(percent(mean(of(scores, row, where, name))) for name in COLUMNS)] for row in (SSFL, FEDSTO)]
    return markdown(["method", *HEAD], lines) if of(scores, FEDSTO, where, TOTAL) else ""


def gains(scores: Scores, weather: str) -> str:
    """Give what FedSTO, with the same first weights, adds to each other method and to the warm-up."""
    lines, where = [], setting(weather)
    for row in (row for row in ROWS if row is not FEDSTO):
        fedsto = partner(scores, row, where)
        pairs = [(of(scores, row, where, metric), of(scores, fedsto, where, metric)) for metric in GAINS]
        lines.append([named(scores, row, where), *(percent(difference(*pair), "+") for pair in pairs)])
    for name, row in STARTS.items():
        pairs = [(start(scores, where, metric, row), of(scores, row, where, metric)) for metric in GAINS]
        lines.append([name, *(percent(difference(*pair), "+") for pair in pairs)])
    head = ["FedSTO less", *(name for name, metric in zip(HEAD, COLUMNS, strict=True) if metric in GAINS)]
    return markdown(head, [line for line in lines if any(line[1:])])


def partner(scores: Scores, row: Row, where: str) -> Row:
    """Give FedSTO's runs with which another row is paired: `AGAIN` where more of these had the row's warm-up."""
    begun = start(scores, where, TOTAL, row).items()
    shared = {one: len(begun & start(scores, where, TOTAL, one).items()) for one in (FEDSTO, AGAIN)}
    return AGAIN if shared[AGAIN] > shared[FEDSTO] else FEDSTO


def gains_text(scores: Scores, weather: str) -> str:
    """Say what is subtracted."""
    other = [f"`{row.name}`" for row in ROWS if partner(scores, row, setting(weather)) is AGAIN]
    return GAINS_TEXT + (AGAIN_TEXT.format(", ".join(other)) if other else "")


def costs(scores: Scores, rows: pd.DataFrame, weather: str) -> str:
    """Give traffic, and precision and recall of reliable pseudo-boxes in the last round."""
    lines, where = [], setting(weather)
    for row in ROWS:
        ways = [of(scores, row, where, metric) for metric in ("bytes_up", "bytes_down")]
        quality = [percent(mean(last_of(rows, row, where, f"pseudo_{name}"))) for name in ("precision", "coverage")]
        if all(ways):
            lines.append([named(scores, row, where), *(f"{mean(way).mean / 1e6:.0f}" for way in ways), *quality])
    return markdown(["method", "MB up", "MB down", "precision (%)", "recall (%)"], lines)


def last_of(rows: pd.DataFrame, row: Row, where: str, metric: str) -> Values:
    """Give each seed's value in the last round that has one."""
    found = course(rows, row, where, metric)
    return {int(str(seed)): float(part["value"].iloc[-1]) for seed, part in found.groupby("seed")}


def course(rows: pd.DataFrame, row: Row, where: str, metric: str) -> pd.DataFrame:
    """Give `seed`, `round` and `value` of a metric, in order of rounds."""
    chosen = rows[(rows.method == row.method) & (rows.variant == row.variant) & (rows.setting == where)]
    chosen = chosen[(chosen.metric == metric) & chosen["round"].str.isdigit()]
    made = pd.DataFrame(
        {
            "seed": chosen["seed"].astype(int),
            "round": chosen["round"].astype(int),
            "value": chosen["value"].astype(float),
        }
    )
    return made.sort_values(["seed", "round"])


def verdict(found: Interval) -> str:
    """Say whether a difference is above 0; an interval that reaches 0, and one seed alone, decide nothing."""
    if math.isnan(found.half):
        return percent(found, "+") or "no runs yet"
    outcome = "yes" if found.mean - found.half > 0 else "no" if found.mean + found.half < 0 else "not decided"
    return f"**{outcome}** {percent(found, '+')}"


def questions(scores: Scores, weather: str) -> str:
    """Give the answers to what the paper's order lets one expect, on late means."""
    where, clients = setting(weather), (f"late_personal_{CLIENTS}", f"late_{CLIENTS}")

    def gains_of(a: Row, b: Row, metrics: tuple[str, str] = (LATE_PAPER, LATE)) -> list[str]:
        chosen = partner(scores, a, where) if b is FEDSTO else b
        return [verdict(difference(of(scores, a, where, one), of(scores, chosen, where, one))) for one in metrics]

    begun = [
        verdict(difference(start(scores, where, one), of(scores, FEDSTO, where, one))) for one in (LATE_PAPER, LATE)
    ]
    asked = {
        "FedSTO ends above its warm-up": begun,
        "The server's labels alone are below SSFL": gains_of(SERVER, SSFL),
        "SSFL's local average labels better than the global model": gains_of(GLOBAL, SSFL),
        "Phase 1 alone is above SSFL": gains_of(SSFL, SELECTIVE),
        "Phase 1 alone is above the server's labels alone": gains_of(SERVER, SELECTIVE),
        "Phase 2 adds to phase 1": gains_of(SELECTIVE, FEDSTO),
        "The penalty helps": gains_of(NO_ORTHOGONAL, FEDSTO),
        "FedSTO is above SSFL": gains_of(SSFL, FEDSTO),
        "FedSTO is above the server's labels alone": gains_of(SERVER, FEDSTO),
        "The same in the clients' three weathers": gains_of(SERVER, FEDSTO, clients),
        "The same in rain": gains_of(SERVER, FEDSTO, (f"late_personal_{RAINY}", f"late_{RAINY}")),
        "All labels are above FedSTO": gains_of(FEDSTO, ALL_LABELS),
    }
    return markdown(["expected", "paper's", "global model"], [[text, *found] for text, found in asked.items()])


def figure(scores: Scores, rows: pd.DataFrame, weather: str) -> Figure:
    """Draw the total by round, mean over seeds, and mAP by weather at the end."""
    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    where = setting(weather)
    counted = of(scores, FEDSTO, where, TOTAL)
    shown = [(colour, row) for colour, row in zip(COLOURS, DRAWN, strict=True) if of(scores, row, where, TOTAL)]
    for place, (colour, row) in enumerate(shown):
        told = course(rows, row, where, TOTAL)
        found = told[told.seed.isin(counted)].groupby("round")["value"].mean()
        left.plot(found.index, 100 * found.to_numpy(), "o-", markersize=3, color=colour, label=row.name)
        ends = [mean(of(scores, row, where, f"late_map50_{one}")) for one in WEATHERS]
        places = [x + (place - (len(shown) - 1) / 2) * 0.16 for x in range(len(WEATHERS))]
        heights, halves = [100 * one.mean for one in ends], [100 * one.half for one in ends]
        right.bar(places, heights, 0.16, yerr=halves, capsize=2, color=colour, label=row.name)
    left.axhline(
        100 * mean(start(scores, where, TOTAL)).mean, color="#999999", linestyle=":", label="after the warm-up"
    )
    left.set_xlabel("round")
    left.set_title("Mean over the weathers, mean over seeds", fontsize=9)
    right.set_xticks(range(len(WEATHERS)), WEATHERS)
    right.set_title(f"Last three evaluations: mean over {seeds(scores, weather)}, 95 % interval of several", fontsize=9)
    for axes in (left, right):
        axes.set_ylabel("mAP at IoU 0.5 (%)")
        axes.grid(axis="y", alpha=0.3)
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return drawn


def seeds(scores: Scores, weather: str) -> str:
    """Say over how many seeds FedSTO's runs go."""
    count = len(of(scores, FEDSTO, setting(weather), TOTAL))
    return f"{count} seed{'' if count == 1 else 's'}"


def image(weather: str) -> str:
    """Give the figure's file name."""
    return f"fedsto_roadsign_{weather}.png"


def page(scores: Scores, rows: pd.DataFrame, weathers: Sequence[str]) -> list[str]:
    """Give the parts of the page that the table makes."""
    parts = []
    for weather in weathers:
        parts += [
            SCORES_TEXT.format(weather=KINDS[weather], seeds=seeds(scores, weather)),
            by_weather(scores, weather),
            f"![mAP by round and by weather](images/{image(weather)})",
            gains_text(scores, weather),
            gains(scores, weather),
            COSTS_TEXT,
            costs(scores, rows, weather),
            QUESTIONS_TEXT,
            questions(scores, weather),
        ]
        if of_many := many(scores, weather):
            parts += [MANY_TEXT, of_many]
    return parts


def publish(table: Path, document: Path, images: Path) -> None:
    """Fill the document and draw its figures."""
    scores, rows = Scores(table), pd.read_csv(table, keep_default_na=False, dtype=str)
    weathers = [weather for weather in KINDS if of(scores, FEDSTO, setting(weather), TOTAL)]
    for weather in weathers:
        figure(scores, rows, weather).savefig(images / image(weather), dpi=150)
    fill(document, page(scores, rows, weathers))
