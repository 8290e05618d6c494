"""Figures of open-world runs over rounds: scores by kind of class, and how far predictions are from the true shares."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fedssl.metrics.base import PERSONAL
from fedssl.report.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    label,
    legend,
    new_figure,
    plain,
    whole_rounds,
)
from fedssl.report.figures import register
from fedssl.report.run import Record, curve
from fedssl.report.split import MAX_NAMES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from fedssl.report.split import SplitCounts

KINDS = (
    (0, "seen", BLUE, "o"),
    (1, "locally unseen", GREEN, "s"),
    (2, "globally unseen", VERMILLION, "^"),
    (-1, "without training samples", BLACK, "x"),
)
"""Number in the file, name, colour and marker of each kind of class, in the order shown."""
LINES = (
    ("accuracy_seen", "seen classes", BLUE, "o-"),
    ("accuracy_locally_unseen", "locally unseen classes", GREEN, "s-"),
    ("accuracy_globally_unseen", "globally unseen classes", VERMILLION, "^-"),
    ("accuracy_unseen", "all unseen classes together", PURPLE, "D--"),
    ("accuracy_all", "all classes, one matching", BLACK, "x--"),
)


@dataclass(frozen=True)
class OpenWorldResult:
    """What `open_world.json` says: `confusion` counts (true class, matched class), `named` gives a class by id."""

    classes: tuple[str, ...]
    kinds: NDArray[np.int64]
    named: NDArray[np.int64]
    confusion: NDArray[np.int64]
    picture: Record

    @property
    def order(self) -> list[int]:
        """Give the classes kind by kind."""
        return [c for kind, *_ in KINDS for c, found in enumerate(self.kinds) if found == kind]

    def bounds(self) -> list[int]:
        """Give the places in `order` at which another kind begins."""
        kinds = [self.kinds[c] for c in self.order]
        return [place for place in range(1, len(kinds)) if kinds[place] != kinds[place - 1]]

    def names(self, limit: int = 18) -> list[str]:
        """Give the classes' names in `order`, ready to show."""
        return [plain(self.classes[c], limit) for c in self.order]


def open_world_of(values: Record) -> OpenWorldResult | None:
    """Give the content of an `open_world.json`; None if there is none or it does not fit together."""
    import numpy as np

    try:
        classes = tuple(str(name) for name in values["classes"])
        kinds, named, confusion = (np.asarray(values[k], np.int64) for k in ("kinds", "named", "confusion"))
    except (KeyError, TypeError, ValueError):
        return None
    n = len(classes)
    fits = (kinds.shape, named.shape, confusion.shape) == ((n,), (n,), (n, n)) and n > 0
    if not fits or sorted(named) != list(range(n)) or not set(kinds) <= {kind for kind, *_ in KINDS}:
        return None
    return OpenWorldResult(classes, kinds, named, confusion, values)


@register(
    "kinds",
    "Seen and unseen classes",
    "Seen classes count by name. Unseen ones count after the best one-to-one matching of predicted ids to classes, "
    "on each line's own samples: locally and globally unseen classes may both claim an id, all together may not.",
    order=40,
    takes=("table", "metric"),
    metrics=("accuracy_seen",),
)
def kinds_figure(table: pd.DataFrame, metric: str) -> Figure | None:
    """Draw the accuracies on each kind of class by round, from `rounds_table`; None if nothing was scored.

    `metric` is the main one: with `personal_` before it, the scores are of the clients' own models.
    """
    prefix = PERSONAL if metric.startswith(PERSONAL) else ""
    curves = [(curve(table, "test", prefix + score) * 100, name, color, style) for score, name, color, style in LINES]
    drawn = [line for line in curves if len(line[0])]
    if curves[0][0].empty:
        return None
    scored = "the clients' own models, mean over clients" if prefix else "the global model"
    figure, axes = new_figure(
        "Accuracy by kind of class", f"test samples; {scored}; n = {len(drawn[0][0])} rounds", 4.6
    )
    for values, name, color, style in drawn:
        many = len(values) > 30
        axes[0].plot(
            values.index,
            values,
            style[1:] if many else style,
            color=color,
            label=name,
            markersize=5,
            linewidth=1.8,
        )
    axes[0].set_ylim(-3, 103)
    label(axes[0], "round", "accuracy (%)")
    whole_rounds(axes[0])
    legend(figure, axes)
    return figure


@register(
    "shares",
    "Bias of predictions",
    "Above: predicted shares (solid) against true ones (dashed); a gap is the bias that open-world methods fight. "
    "Below: the gap by class, orange where a class is predicted too often. Ids of unseen classes have the names "
    "that fit the last round's test samples best.",
    order=70,
    takes=("table", "records", "split", "world"),
    files=("open_world.json", "split.npz"),
    metrics=("predicted",),
)
def shares_figure(
    table: pd.DataFrame, records: list[Record], held: SplitCounts, world: OpenWorldResult
) -> Figure | None:
    """Draw which classes are predicted on unlabelled samples by round, beside the true shares; None without any.

    A round's shares are of the clients that trained in it. Seen ids are themselves; the others have the names that
    fit the last round's test samples best.
    """
    found = shares(table, records, held, world)
    if found is None:
        return None
    rounds, predicted, true = found
    note = f"unlabelled samples of the round's clients, before they train; n = {len(rounds)} rounds"
    height = 4.2 + 0.2 * min(len(world.classes), MAX_NAMES)
    ratios = {"height_ratios": [2.2, 1 + 0.1 * min(len(world.classes), MAX_NAMES)]}
    figure, axes = new_figure("Predicted and true shares of classes", note, height, 2, sharex=True, gridspec_kw=ratios)
    _sums(axes[0], rounds, 100 * predicted, 100 * true, world)
    _gaps(axes[1], rounds, 100 * (predicted - true), world)
    label(axes[1], "round", "class")
    whole_rounds(axes[1])
    legend(figure, axes, columns=2)
    return figure


def _sums(
    ax: Axes, rounds: list[int], predicted: NDArray[np.float64], true: NDArray[np.float64], world: OpenWorldResult
) -> None:
    for place, (kind, name, color, marker) in enumerate(KINDS):
        mine = world.kinds == kind
        if not mine.any():
            continue
        style = f"{marker}-" if len(rounds) <= 30 else "-"
        ax.plot(rounds, predicted[:, mine].sum(1), style, color=color, markersize=5, linewidth=1.8, label=name)
        # Kinds may have equal true shares: dashes that begin apart show all of them.
        dashes = (4 * place, (4, 8))
        ax.plot(rounds, true[:, mine].sum(1), linestyle=dashes, color=color, linewidth=1.8, zorder=1)
    ax.plot([], [], "--", color=GREY, linewidth=1.8, label="true share, in the kind's colour")
    ax.set_ylim(-3, 103)
    label(ax, y="share of samples (%)")


def shares(
    table: pd.DataFrame, records: list[Record], held: SplitCounts, world: OpenWorldResult
) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]] | None:
    """Give rounds, and predicted and true shares (rounds, classes) of unlabelled samples; None without any."""
    import numpy as np

    num_classes = len(world.classes)
    columns = {c: curve(table, "train", f"predicted_{c}") for c in range(num_classes)}
    rounds = sorted(set.intersection(*(set(column.index) for column in columns.values())))
    counts = held.unlabelled[:, :-1].astype(float)
    if not rounds or counts.shape[1] != num_classes or not counts.any():
        return None
    predicted = np.zeros((len(rounds), num_classes))
    for id_, class_ in enumerate(world.named):
        predicted[:, class_] = columns[id_][rounds]
    by_round = {int(record["round"]): _trained(record, len(counts)) for record in records}
    true = np.stack([counts[by_round[round_]].sum(axis=0) for round_ in rounds])
    return rounds, predicted, true / np.maximum(true.sum(axis=1, keepdims=True), 1)


def _trained(record: Record, num_clients: int) -> list[int]:
    failed = {int(client) for client in record.get("failed") or {}}
    cohort: Any = record.get("cohort")
    everyone = range(num_clients)
    return [c for c in everyone if c not in failed and (cohort is None or c in cohort)]


def _gaps(ax: Axes, rounds: list[int], points: NDArray[np.float64], world: OpenWorldResult) -> None:
    import numpy as np

    top = max(5.0, float(np.abs(points).max()))
    edges = [rounds[0] - 0.5, *((a + b) / 2 for a, b in pairwise(rounds)), rounds[-1] + 0.5]
    image = ax.pcolormesh(
        edges, np.arange(len(world.classes) + 1) - 0.5, points.T[world.order], cmap="PuOr_r", vmin=-top, vmax=top
    )
    ax.invert_yaxis()
    ax.grid(visible=False)
    name_classes(ax.yaxis, world.names())
    for bound in world.bounds():
        ax.axhline(bound - 0.5, color=BLACK, linewidth=1.4)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01, fraction=0.04, aspect=16)
    bar.set_label("predicted minus true (points)", fontsize=10)
    bar.ax.tick_params(labelsize=9)


def name_classes(axis: Any, names: list[str]) -> None:
    """Put class names on an axis, at most `MAX_NAMES` of them."""
    ticks = list(range(0, len(names), -(-len(names) // MAX_NAMES)))
    axis.set_ticks(ticks, [names[tick] for tick in ticks])
