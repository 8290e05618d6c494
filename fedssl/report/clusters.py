"""Figures of an open-world run's last round: what is taken for what, and where classes lie in the features."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fedssl.report.canvas import BLACK, GREY, PALETTE, label, legend, new_figure, plain
from fedssl.report.figures import register
from fedssl.report.open_world import KINDS, name_classes
from fedssl.report.split import MAX_NAMES

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from fedssl.report.open_world import OpenWorldResult


@register(
    "confusion",
    "Confusion after matching",
    "One matching over all test samples, last round; lines part the kinds of classes. A column that is dark in "
    "two rows holds two classes in one cluster.",
    order=50,
    takes=("world",),
    files=("open_world.json",),
)
def confusion_figure(world: OpenWorldResult) -> Figure | None:
    """Draw the shares of each true class that are predicted as each matched class; None without samples."""
    import numpy as np

    counts = world.confusion[np.ix_(world.order, world.order)].astype(float)
    if not counts.any():
        return None
    size = counts.sum(axis=1, keepdims=True)
    shares = np.where(size > 0, 100 * counts / np.maximum(size, 1), np.nan)
    right = np.trace(counts) / counts.sum()
    note = f"n = {int(counts.sum()):,} test samples; {100 * right:.1f}% on the diagonal; rows add up to 100%"
    figure, axes = new_figure("What each class is taken for", note, 6.4 if len(counts) > 6 else 5)
    image = axes[0].imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    axes[0].grid(visible=False)
    name_classes(axes[0].xaxis, world.names(16))
    name_classes(axes[0].yaxis, world.names())
    axes[0].tick_params(axis="x", rotation=40)
    for tick in axes[0].get_xticklabels():
        tick.set(ha="right", rotation_mode="anchor")
    for bound in world.bounds():
        axes[0].axhline(bound - 0.5, color=BLACK, linewidth=1.4)
        axes[0].axvline(bound - 0.5, color=BLACK, linewidth=1.4)
    if len(counts) <= MAX_NAMES:
        _write_shares(axes[0], shares)
    _name_kinds(axes[0], world)
    label(axes[0], "predicted cluster, by the class it is matched to", "true class")
    bar = figure.colorbar(image, ax=axes[0], pad=0.05, fraction=0.04, aspect=24)
    bar.set_label("share of the true class (%)", fontsize=10)
    bar.ax.tick_params(labelsize=9)
    return figure


def _write_shares(ax: Axes, shares: NDArray[np.float64]) -> None:
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            if value >= 0.5:
                color = "white" if value > 55 else BLACK
                ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=9, color=color)


def _name_kinds(ax: Axes, world: OpenWorldResult) -> None:
    edges = [0, *world.bounds(), len(world.order)]
    for start, end in pairwise(edges):
        kind = world.kinds[world.order[start]]
        words = next(name for number, name, *_ in KINDS if number == kind).replace(" ", "\n", 1)
        place = 1 - (start + end) / 2 / len(world.order)
        ax.text(
            1.015,
            place,
            words,
            transform=ax.transAxes,
            rotation=90,
            ha="left",
            va="center",
            fontsize=8,
            color=GREY,
        )


@register(
    "features",
    "Features and global centroids",
    "Principal directions of the test samples' unit features, last round. Markers tell kinds of classes, stars are "
    "the server's centroids: seen ones named as in training, the others by the test samples that fit best. A star "
    "amid its own class is what the method aims at.",
    order=60,
    takes=("world",),
    files=("open_world.json",),
)
def features_figure(world: OpenWorldResult) -> Figure | None:
    """Draw test samples, and the global centroids if there are any, on the plane of `open_world.json`."""
    points = _columns(world.picture.get("points"), len(world.classes))
    if points is None:
        return None
    x, y, class_ = points
    shares = [float(value) for value in world.picture.get("variance") or []]
    told = f"; the axes hold {100 * sum(shares):.0f}% of the variance" if shares else ""
    note = f"n = {len(x):,} test samples, unit features{told}"
    figure, axes = new_figure("Features of the global model", note, 6.8)
    axes[0].grid(visible=False)
    marks = class_marks(world)
    for c in world.order:
        mine = class_ == c
        if mine.any():
            color, marker, name = marks[c]
            axes[0].scatter(x[mine], y[mine], s=16, color=color, marker=marker, alpha=0.55, linewidths=0.8, label=name)
    centroids = _columns(world.picture.get("centroids"), len(world.classes))
    if centroids is not None:
        _stars(axes[0], centroids, world, marks)
    axes[0].set_aspect("equal", adjustable="datalim")
    label(axes[0], "first principal direction", "second principal direction")
    legend(figure, axes)
    for handle in figure.legends[0].legend_handles if figure.legends else []:
        if handle is not None:
            handle.set_alpha(1)
    return figure


def class_marks(world: OpenWorldResult) -> dict[int, tuple[str, str, str]]:
    """Give colour, marker and legend name by class: markers tell kinds, colours classes if they are few."""
    found = {}
    many = len(world.classes) > 2 * len(PALETTE)
    by_kind = {kind: rest for kind, *rest in KINDS}
    for place, c in enumerate(world.order):
        name, color, marker = by_kind[int(world.kinds[c])]
        own = f"{plain(world.classes[c], 16)} ({name})"
        found[c] = (color, marker, name) if many else (PALETTE[place % len(PALETTE)], marker, own)
    return found


def _columns(
    values: Any, num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]] | None:
    """Give x, y and class of stored points; None if there are none or they do not fit together."""
    import numpy as np

    if not isinstance(values, dict):
        return None
    x, y = (np.asarray(values.get(name) or [], dtype=float) for name in ("x", "y"))
    class_ = np.asarray(values.get("class") or [], dtype=np.int64)
    fits = len(x) == len(y) == len(class_) > 0 and class_.min() >= 0 and class_.max() < num_classes
    return (x, y, class_) if fits else None


def _stars(
    ax: Axes, centroids: tuple[Any, Any, Any], world: OpenWorldResult, marks: dict[int, tuple[str, str, str]]
) -> None:
    import numpy as np
    from matplotlib.patheffects import withStroke

    xs, ys, _ = centroids
    near_x, near_y = (0.25 * span for span in (np.ptp(ax.get_xlim()), 0.2 * np.ptp(ax.get_ylim())))
    named = len(world.classes) <= MAX_NAMES
    for place, (x, y, c) in enumerate(zip(*centroids, strict=True)):
        name = "global centroid" if place == 0 else None
        ax.plot(
            x,
            y,
            "*",
            color=marks[c][0],
            markersize=16 if named else 10,
            markeredgecolor=BLACK,
            label=name,
            linestyle="",
        )
        if named:
            crowded = ((xs > x) & (xs < x + near_x) & (abs(ys - y) < near_y)).any()
            ax.annotate(
                plain(world.classes[c], 16),
                (x, y),
                xytext=(-9, 4) if crowded else (9, 4),
                ha="right" if crowded else "left",
                textcoords="offset points",
                fontsize=9,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
