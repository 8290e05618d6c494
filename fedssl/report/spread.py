"""Figure of how a metric spreads over clients, the global model beside the clients' own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedssl.metrics.base import PERSONAL, metric_of
from fedssl.report.canvas import BLUE, GREY, SKY, VERMILLION, label, legend, new_figure
from fedssl.report.figures import register
from fedssl.report.run import last_by_client
from fedssl.report.tables import title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED = 40


@register(
    "clients",
    "Spread over clients",
    "Every client on its own test samples, in rising order of the bars.",
    order=80,
    takes=("clients", "metric"),
)
def spread_figure(clients: pd.DataFrame, metric: str) -> Figure | None:
    """Draw a metric by client in rising order, from `clients_table`; None if it has no scores.

    Bars are the model that the metric is of at its last evaluation, dots the clients' own models.
    """
    unit = 100 if metric_of(metric).is_share else 1
    values = last_by_client(clients, metric).sort_values(kind="stable") * unit
    personal = last_by_client(clients, PERSONAL + metric) * unit
    if values.empty:
        return None
    round_ = int(clients.dropna(subset=[metric])["round"].max())
    tests = f"; {_tests(clients, round_)} test samples in all" if "num_test" in clients else ""
    note = f"n = {len(values)} clients, each on its own test samples, round {round_}{tests}"
    name = title(metric.removeprefix(PERSONAL))
    figure, axes = new_figure(f"{name[:1].upper()}{name[1:]} by client", note, 4.4)
    ax, places = axes[0], range(len(values))
    width = 0.8 if len(values) <= MAX_NAMED else 1.0
    own = metric.startswith(PERSONAL)
    ax.bar(places, values, width=width, color=SKY, label="clients' own models" if own else "global model")
    _levels(ax, values, BLUE, "clients' own" if own else "global")
    if len(personal):
        size = 6 if len(values) <= MAX_NAMED else 2.5
        dots = personal.reindex(values.index)
        ax.plot(places, dots, "o", color=VERMILLION, markersize=size, label="clients' own models")
        _levels(ax, personal, VERMILLION, "clients' own")
    _name_clients(ax, list(values.index))
    label(ax, ax.get_xlabel(), metric_of(metric).axis)
    ax.margins(x=0.01)
    legend(figure, axes, columns=2)
    return figure


def _tests(clients: pd.DataFrame, round_: int) -> int:
    return int(clients[clients["round"] == round_]["num_test"].fillna(0).sum())


def _levels(ax: Axes, values: pd.Series[float], color: str, name: str) -> None:
    mean, tenth = float(values.mean()), float(values.quantile(0.1))
    ax.axhline(mean, color=color, linewidth=1.4, label=f"mean, {name}: {mean:.3g}")
    text = f"10th percentile, {name}: {tenth:.3g}"
    ax.axhline(tenth, color=color, linewidth=1.4, linestyle=":", label=text)


def _name_clients(ax: Axes, ids: list[int]) -> None:
    if len(ids) <= MAX_NAMED:
        ax.set_xticks(range(len(ids)), [str(client) for client in ids])
        ax.tick_params(axis="x", labelsize=10 if len(ids) <= 25 else 8, colors=GREY)
        ax.set_xlabel("client, in rising order")
    else:
        ax.set_xlabel(f"clients in rising order (0 to {len(ids) - 1})")
