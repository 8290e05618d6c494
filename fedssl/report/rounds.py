"""Figures over rounds: scores, pseudo-labels, and what the run cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedssl.metrics.base import PERSONAL, metric_of
from fedssl.report.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    SKY,
    VERMILLION,
    label,
    legend,
    new_figure,
    whole_rounds,
)
from fedssl.report.figures import register
from fedssl.report.run import curve

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = list[tuple[str, str, str, str]]
"""SplitCounts, metric, name in the legend, colour."""
PSEUDO: Lines = [
    ("train", "pseudo_precision", "precision: kept pseudo-labels that are right", GREEN),
    ("train", "pseudo_mask_rate", "mask rate: unlabelled samples kept", BLUE),
    ("train", "pseudo_coverage", "coverage: unlabelled, kept and right", PURPLE),
]
OF_BOXES = ("pseudo_per_image", "pseudo_reliable_per_image")
"""Metrics of pseudo-boxes, which have a figure of their own."""


@register(
    "scores",
    "Scores by round",
    "A star marks the round that was best on validation; test scores never choose it.",
    order=10,
    takes=("table", "clients", "metric", "best_round"),
)
def scores_figure(table: pd.DataFrame, clients: pd.DataFrame, metric: str, best_round: int | None) -> Figure | None:
    """Draw the main metric and the loss by round, from `rounds_table` and `clients_table`.

    The band spans the 10th to 90th percentile of the clients. None if nothing was scored.
    """
    base = metric.removeprefix(PERSONAL)
    panels = [name for name in (base, "loss") if len(_splits(table, name))]
    if not panels:
        return None
    by_client = _percentiles(clients, metric)
    note = _note(table, clients, banded=len(by_client) > 0)
    figure, axes = new_figure("Scores by round", note, 1.3 + 2.7 * len(panels), len(panels), sharex=True)
    for ax, name in zip(axes, panels, strict=True):
        unit = 100 if metric_of(name).is_share else 1
        if name == base and len(by_client):
            band = by_client * unit
            color = BLUE if metric == base else VERMILLION
            ax.fill_between(band.index, band["low"], band["high"], color=color, alpha=0.15, linewidth=0)
        _draw(ax, table, _score_lines(name))
        label(ax, y=metric_of(name).axis)
        if best_round is not None:
            _mark_best(ax, table, name if metric == base else PERSONAL + name, best_round)
    label(axes[-1], "round", axes[-1].get_ylabel())
    whole_rounds(axes[-1])
    legend(figure, axes, columns=2)
    return figure


def _score_lines(metric: str) -> Lines:
    return [
        ("test", metric, "test, global model", BLUE),
        ("test", PERSONAL + metric, "test, clients' own models", VERMILLION),
        ("validation", metric, "validation, global model", GREEN),
        ("validation", PERSONAL + metric, "validation, clients' own models", SKY),
        ("train", metric, "training, clients' own objective", GREY),
    ]


def _splits(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table[table["metric"].isin([metric, PERSONAL + metric])]


def _percentiles(clients: pd.DataFrame, metric: str) -> pd.DataFrame:
    import pandas as pd

    if metric not in clients.columns:
        return pd.DataFrame()
    groups = clients.dropna(subset=[metric]).groupby("round")[metric]
    band = pd.DataFrame({"low": groups.quantile(0.1), "high": groups.quantile(0.9)})
    return band[groups.count() >= 5]


def _note(table: pd.DataFrame, clients: pd.DataFrame, *, banded: bool) -> str:
    number = clients["client"].nunique() if len(clients) else 0
    note = f"n = {number} clients" if number else f"n = {table['round'].nunique()} rounds"
    return f"{note}; band: 10th to 90th percentile of clients (test)" if banded else note


def _draw(ax: Axes, table: pd.DataFrame, lines: Lines) -> None:
    for split, metric, name, color in lines:
        values = curve(table, split, metric) * (100 if metric_of(metric).is_share else 1)
        if len(values):
            marker = "o" if len(values) <= 30 else ""
            style = "--" if split == "train" and metric == "loss" else "-"
            ax.plot(
                values.index,
                values,
                style,
                color=color,
                label=name,
                marker=marker,
                markersize=4,
                linewidth=1.8,
            )


def _mark_best(ax: Axes, table: pd.DataFrame, metric: str, best_round: int) -> None:
    name = f"best on validation: round {best_round}"
    ax.axvline(best_round, color=GREY, linestyle=":", linewidth=1.4, label=name, zorder=0)
    values = curve(table, "test", metric)
    if best_round in values.index:
        value = values[best_round] * (100 if metric_of(metric).is_share else 1)
        color = VERMILLION if metric.startswith(PERSONAL) else BLUE
        ax.plot(best_round, value, "*", color=color, markersize=14, markeredgecolor="white")


@register(
    "pseudo",
    "Pseudo-labels",
    "How much of the unlabelled data the method used and, where its truth is known, how much of that was right.",
    order=150,
    takes=("table",),
    metrics=("pseudo_precision", "pseudo_mask_rate", "pseudo_coverage"),
)
def pseudo_figure(table: pd.DataFrame) -> Figure | None:
    """Draw mask rate, precision and coverage of pseudo-labels by round; None without any, or for pseudo-boxes."""
    if table["metric"].isin(OF_BOXES).any():
        return None
    present = [line for line in PSEUDO if len(curve(table, line[0], line[1]))]
    if not present:
        return None
    number = len(curve(table, present[0][0], present[0][1]))
    note = f"pooled over the clients of a round; n = {number} rounds"
    figure, axes = new_figure("Pseudo-labels by round", note, 4.2)
    _draw(axes[0], table, present)
    axes[0].set_ylim(-3, 103)
    label(axes[0], "round", "share (%)")
    whole_rounds(axes[0])
    legend(figure, axes, columns=2)
    return figure


@register(
    "cost",
    "Cost",
    "Megabytes (10^6 bytes) between server and clients, summed over rounds; seconds a round.",
    order=180,
    takes=("table",),
)
def cost_figure(table: pd.DataFrame) -> Figure | None:
    """Draw cumulative megabytes (10^6 bytes) sent and seconds by round; None if not recorded."""
    seconds = curve(table, "cost", "seconds")
    wires = [
        ("bytes_up", "up, clients to server", BLUE),
        ("bytes_down", "down, server to clients", VERMILLION),
    ]
    if seconds.empty and all(curve(table, "cost", name).empty for name, _, _ in wires):
        return None
    total = f"{seconds.sum():.0f} s in all, median {seconds.median():.2f} s a round" if len(seconds) else "n"
    figure, axes = new_figure("Cost by round", f"{total}; n = {len(seconds)} rounds", 5.2, 2, sharex=True)
    for (name, text, color), style in zip(wires, ("-", "--"), strict=True):
        sent = curve(table, "cost", name).cumsum() / 1e6
        axes[0].plot(sent.index, sent, style, color=color, label=text, linewidth=2)
    axes[0].set_ylim(bottom=0)
    label(axes[0], y="sent so far (MB)")
    axes[1].bar(seconds.index, seconds, color=GREY, width=0.8, label="wall-clock seconds")
    server = curve(table, "cost", "server_seconds")
    if len(server):
        axes[1].bar(server.index, server, color=BLACK, width=0.8, label="of them the server's own steps")
    label(axes[1], "round", "seconds a round")
    whole_rounds(axes[1])
    legend(figure, axes)
    return figure
