"""Figures of methods that give every client a model of its own: mixtures, embeddings, reconstructions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fedssl.metrics.base import PERSONAL, metric_of
from fedssl.report.canvas import GREY, PALETTE, SKY, VERMILLION, label, legend, new_figure, plain, whole_rounds
from fedssl.report.figures import register
from fedssl.report.run import Record, curve, last_by_client
from fedssl.report.spread import MAX_NAMED
from fedssl.report.tables import title

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

WEIGHT = re.compile(rf"{PERSONAL}weight_(.+)")
"""Column of a client's mixture weight; the group names the component."""
KEPT = re.compile(r"kept_\d+")
"""Share of a domain of the server's samples that the filter kept."""
MAX_PICTURES = 6


@register(
    "mixture",
    "Mixtures",
    "How each client mixes the classifiers that it was sent, as its labels ask for; equal ones where it has none.",
    order=90,
    takes=("clients", "metric"),
    metrics=("weight",),
)
def mixture_figure(clients: pd.DataFrame, metric: str) -> Figure | None:
    """Draw each client's mixture weights, in rising order of `metric`, from `clients_table`; None without any."""
    columns = {name: found.group(1) for name in clients.columns if (found := WEIGHT.fullmatch(name))}
    weights = {component: last_by_client(clients, name) for name, component in columns.items()}
    weights = {component: values for component, values in weights.items() if len(values)}
    if not weights:
        return None
    scores = last_by_client(clients, metric).sort_values(kind="stable")
    order = [client for client in scores.index if any(client in values.index for values in weights.values())]
    figure, axes = new_figure(
        "Mixture weights by client", f"n = {len(order)} clients, in rising order of {title(metric)}", 3.8
    )
    bottom = [0.0] * len(order)
    width = 0.8 if len(order) <= MAX_NAMED else 1.0
    for place, (component, values) in enumerate(sorted(weights.items())):
        heights = [float(values.get(client, 0.0)) * 100 for client in order]
        color = PALETTE[place % len(PALETTE)]
        axes[0].bar(range(len(order)), heights, width, bottom, color=color, label=f"component {plain(component)}")
        bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
    if len(order) <= MAX_NAMED:
        axes[0].set_xticks(range(len(order)), [str(client) for client in order], fontsize=8, color=GREY)
    label(axes[0], "client, in rising order of its score", "weight (%)")
    axes[0].margins(x=0.01)
    legend(figure, axes)
    return figure


@register(
    "embeddings",
    "Embeddings",
    "Clients that lie close to each other are given similar models.",
    order=110,
    takes=("method", "clients", "metric"),
    files=("method.json",),
)
def embeddings_figure(values: Record, clients: pd.DataFrame, metric: str) -> Figure | None:
    """Draw the clients' embeddings of `method.json` in the plane, coloured by `metric`; None without any."""
    rows = [row for row in values.get("embeddings") or [] if isinstance(row, dict) and {"client", "x", "y"} <= set(row)]
    if not rows:
        return None
    scores = last_by_client(clients, metric)
    unit = 100 if metric_of(metric).is_share else 1
    x, y = ([float(row[axis]) for row in rows] for axis in ("x", "y"))
    shades = [float(scores.get(int(row["client"]), float("nan"))) * unit for row in rows]
    figure, axes = new_figure("Embeddings of the clients", f"n = {len(rows)} clients; two principal directions", 5.6)
    ax = axes[0]
    image = ax.scatter(x, y, c=shades, cmap="viridis", s=60, edgecolors=GREY, linewidths=0.5, plotnonfinite=True)
    for row, across, up in zip(rows, x, y, strict=True):
        name = str(row.get("subject", "")) or str(row["client"])
        ax.annotate(plain(name, 8), (across, up), xytext=(5, 4), textcoords="offset points", fontsize=8, color=GREY)
    ax.grid(visible=False)
    label(ax, "first principal direction", "second principal direction")
    bar = figure.colorbar(image, ax=ax, pad=0.01, fraction=0.04, aspect=24)
    bar.set_label(metric_of(metric).axis, fontsize=10)
    return figure


@register(
    "reconstructions",
    "Reconstructions",
    "Test windows of clients from the worst score to the best, beside what the autoencoder that the server "
    "generated for them, before their own training, makes of these.",
    order=120,
    takes=("method", "clients", "metric"),
    files=("method.json",),
)
def reconstructions_figure(values: Record, clients: pd.DataFrame, metric: str) -> Figure | None:
    """Draw windows of `method.json` with what the client's generated autoencoder makes of them; None without any.

    Shown are clients from the worst to the best by `metric`, at most `MAX_PICTURES`.
    """
    found = [picture for row in values.get("reconstructions") or [] if (picture := _picture(row)) is not None]
    if not found:
        return None
    ranks = {int(client): place for place, client in enumerate(last_by_client(clients, metric).sort_values().index)}
    by_client: dict[int, tuple[int, str, NDArray[np.float64], NDArray[np.float64]]] = {}
    for picture in sorted(found, key=lambda one: ranks.get(one[0], len(ranks))):
        by_client.setdefault(picture[0], picture)
    every = list(by_client.values())
    shown = every if len(every) <= MAX_PICTURES else [every[i] for i in _spaced(len(every))]
    figure, axes = new_figure(
        "Windows and their reconstructions", "solid: model input; dashed: the generated autoencoder",
        1.0 + 1.3 * len(shown), len(shown), sharex=True,
    )  # fmt: skip
    for ax, (client, name, window, made) in zip(axes, shown, strict=True):
        for channel, (true, rebuilt) in enumerate(zip(window, made, strict=True)):
            color = PALETTE[channel % len(PALETTE)]
            ax.plot(true, color=color, linewidth=1.3, label=f"channel {channel}")
            ax.plot(rebuilt, "--", color=color, linewidth=1.3)
        error = float(((window - made) ** 2).mean())
        ax.text(
            1.005, 0.5, f"client {client}\n{plain(name, 14)}\nerror {error:.3f}", transform=ax.transAxes, fontsize=8
        )
    label(axes[-1], "step", "scaled units")
    legend(figure, axes, columns=6)
    return figure


@register(
    "visits",
    "Visits",
    "How much of the server's labelled windows the clients' autoencoders give back well enough for a "
    "classifier to learn from, and how well they give back the clients' own.",
    order=100,
    takes=("table",),
    metrics=("kept", "error_before", "error_after"),
)
def visits_figure(table: pd.DataFrame) -> Figure | None:
    """Draw by round how much of each domain the filter kept, and the autoencoders' error; None without either."""
    shares = {name: curve(table, "train", name) * 100 for name in sorted(set(table["metric"])) if KEPT.fullmatch(name)}
    errors = {text: values for name, text in ERRORS if len(values := curve(table, "train", name))}
    count = bool(shares) + bool(errors)
    if not count:
        return None
    figure, axes = new_figure("Visits", "means over the round's clients", 1.0 + 2.4 * count, count, sharex=True)
    for place, (name, values) in enumerate(shares.items()):
        axes[0].plot(values.index, values, color=PALETTE[place % len(PALETTE)], label=f"kept of domain {name[5:]}")
    if shares:
        axes[0].set_ylim(-3, 103)
        label(axes[0], y="windows kept (%)")
    for (text, values), color in zip(errors.items(), (SKY, VERMILLION), strict=False):
        axes[-1].plot(values.index, values, color=color, label=text)
    if errors:
        axes[-1].set_ylim(bottom=0)
        label(axes[-1], y="reconstruction error")
    axes[-1].set_xlabel("round", fontsize=11)
    whole_rounds(axes[-1])
    legend(figure, axes, columns=2)
    return figure


ERRORS = (
    ("error_before", "error of the generated autoencoder"),
    ("error_after", "error after the client's training"),
)


def _spaced(count: int) -> list[int]:
    return [round(i * (count - 1) / (MAX_PICTURES - 1)) for i in range(MAX_PICTURES)]


def _picture(row: Any) -> tuple[int, str, NDArray[np.float64], NDArray[np.float64]] | None:
    """Give client, class, window and reconstruction (channels, steps); None if they do not fit together."""
    import numpy as np

    try:
        window, made = (np.asarray(row[name], float) for name in ("window", "reconstruction"))
        client, name = int(row["client"]), str(row.get("class", ""))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return (client, name, window, made) if window.shape == made.shape and window.ndim == 2 else None
