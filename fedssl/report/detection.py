"""Figures of detectors: precision by weather and class, pseudo-boxes by round, and boxes on pictures."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fedssl.metrics.base import PERSONAL, WARM_UP
from fedssl.report.canvas import (
    BLUE,
    GREEN,
    GREY,
    PALETTE,
    PURPLE,
    VERMILLION,
    WIDTH,
    label,
    legend,
    new_figure,
    plain,
    whole_rounds,
)
from fedssl.report.figures import register
from fedssl.report.run import Record, curve

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP50, AP50 = "map50_", "ap50_"
TOTAL = "map50_total"
RELIABLE = 0.5
"""Boxes of more than this score are drawn solid where the method has no threshold of its own."""
STAGES = {"before": "before the warm-up", "after": "after the warm-up", "end": "at the end"}
"""Lists of found boxes in a picture of `method.json`, in the order of time, each with its title."""
MAX_ROWS = 6
PSEUDO = (
    ("pseudo_precision", "precision: reliable boxes that are right", GREEN),
    ("pseudo_coverage", "recall: true boxes found by reliable ones", PURPLE),
    ("pseudo_mask_rate", "reliable boxes of all", BLUE),
)
COUNTS = (
    ("pseudo_per_image", "all pseudo-boxes", BLUE),
    ("pseudo_reliable_per_image", "reliable ones", GREEN),
)


@register(
    "domains",
    "Weather",
    "Mean average precision on the same test pictures in each weather. Solid: the global model; dashed: clients' "
    "own models after local training; dotted: the model after the server's warm-up, under which none should end.",
    order=20,
    takes=("table",),
    metrics=("map50",),
)
def domains_figure(table: pd.DataFrame) -> Figure | None:
    """Draw mAP at IoU 0.50 by round and weather, from `rounds_table`; None unless there are weathers.

    Dashed: the clients' own models, each on its own weather. Dotted: the model after the server's warm-up.
    """
    scored = table[table["split"] == "test"]
    names = dict.fromkeys(scored["metric"].str.removeprefix(PERSONAL))
    domains = [name for name in names if name.startswith(MAP50) and name != TOTAL]
    if not domains:
        return None
    note = f"n = {scored['round'].nunique()} scored rounds; dashed: clients' own models on their own weather"
    figure, axes = new_figure("Mean average precision by weather", note, 4.6)
    for place, name in enumerate([*domains, TOTAL]):
        color = PALETTE[-1] if name == TOTAL else PALETTE[place % (len(PALETTE) - 1)]
        shown = "mean over weathers" if name == TOTAL else name.removeprefix(MAP50)
        _line(axes[0], curve(table, "test", name), "-", color, plain(shown))
        if name != TOTAL:
            _line(axes[0], curve(table, "test", PERSONAL + name), "--", color, f"{plain(shown)}, clients' own")
        before = curve(table, "train", WARM_UP + name)
        if len(before):
            axes[0].axhline(100 * before.iloc[0], color=color, linestyle=":", linewidth=1.2, zorder=0)
    _mark_phases(axes[0], curve(table, "train", "phase"))
    axes[0].set_ylim(bottom=0)
    label(axes[0], "round", "mAP at IoU 0.50 (%)")
    whole_rounds(axes[0])
    legend(figure, axes)
    return figure


@register(
    "classes",
    "Classes",
    "A rare class has few boxes, so its precision is coarse.",
    order=30,
    takes=("final",),
    metrics=("ap50",),
)
def classes_figure(final: Mapping[str, float]) -> Figure | None:
    """Draw the average precision at IoU 0.50 of each class at the end; None if no class has one."""
    values = {name.removeprefix(AP50): 100 * value for name, value in final.items() if name.startswith(AP50)}
    if not values:
        return None
    note = "final model on all test pictures; classes without true boxes are left out"
    figure, axes = new_figure("Average precision by class", note, 1.6 + 0.32 * len(values))
    bars = axes[0].barh([plain(name) for name in values], list(values.values()), color=BLUE, height=0.7)
    axes[0].bar_label(bars, fmt="%.1f", padding=3, fontsize=9, color=GREY)
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, 105)
    axes[0].grid(visible=False)
    mean = float(final.get("map50", float("nan")))
    if mean == mean:
        axes[0].axvline(100 * mean, color=VERMILLION, linestyle=":", label=f"mean over classes: {100 * mean:.1f} %")
    label(axes[0], "average precision at IoU 0.50 (%)")
    legend(figure, axes)
    return figure


@register(
    "pseudo_boxes",
    "Pseudo-boxes",
    "Quality of the boxes that clients train on, against true boxes that no training sees, and how many there are.",
    order=140,
    takes=("table",),
    metrics=("pseudo_per_image", "pseudo_reliable_per_image"),
)
def pseudo_boxes_figure(table: pd.DataFrame) -> Figure | None:
    """Draw quality and number of the clients' pseudo-boxes by round; None if there are none."""
    counts = [(curve(table, "train", name), text, color) for name, text, color in COUNTS]
    if all(values.empty for values, _, _ in counts):
        return None
    note = f"pooled over the clients of a round; n = {len(counts[0][0])} rounds; right: IoU 0.50 and the class"
    figure, axes = new_figure("Pseudo-boxes by round", note, 5.6, 2, sharex=True)
    for name, text, color in PSEUDO:
        _line(axes[0], curve(table, "train", name), "-", color, text)
    for values, text, color in counts:
        _line(axes[1], values / 100, "--", color, text)
    axes[0].set_ylim(-3, 103)
    axes[1].set_ylim(bottom=0)
    for ax in axes:
        _mark_phases(ax, curve(table, "train", "phase"))
    label(axes[0], y="share (%)")
    label(axes[1], "round", "boxes a picture")
    whole_rounds(axes[1])
    legend(figure, axes, columns=2)
    return figure


@register(
    "pictures",
    "Pictures",
    "The same test pictures in each weather: true boxes, and what the model finds as training goes on. Colours "
    "tell classes; solid boxes score above tau2, as pseudo-boxes that count as labels do, dashed ones below; those "
    "under 0.25 are left out.",
    order=160,
    takes=("method",),
    files=("method.json",),
)
def pictures_figure(values: Record) -> Figure | None:
    """Draw a test picture of each weather of `method.json`, with its true boxes and those found at each stage.

    Found boxes are solid where their score would make them pseudo-boxes that count as labels (`reliable`), dashed and
    thin below. None without pictures.
    """
    rows = [row for row in values.get("pictures") or [] if isinstance(row, dict)]
    first = {row.get("weather") or place: row for place, row in reversed([*enumerate(rows)])}
    some = sorted(first.values(), key=rows.index)[:MAX_ROWS]
    drawn = [(row, image) for row in some if (image := _image(row.get("picture"))) is not None]
    stages = [name for name in STAGES if any(isinstance(row.get(name), list) for row, _ in drawn)]
    if not drawn:
        return None
    from matplotlib.figure import Figure

    columns, reliable = ["true", *stages], float(values.get("reliable", RELIABLE))
    side = WIDTH / len(columns)
    size = (WIDTH, 1.0 + side * len(drawn))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle("Boxes on test pictures", x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes = figure.subplots(len(drawn), len(columns), squeeze=False)
    for line, (row, image) in zip(axes, drawn, strict=True):
        for ax, name in zip(line, columns, strict=True):
            ax.imshow(image)
            ax.set_xticks([])
            ax.set_yticks([])
            _draw_boxes(ax, row.get(name) or [], reliable)
        line[0].set_ylabel(plain(row.get("weather", "")), fontsize=10)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(STAGES.get(name, "true boxes"), fontsize=10, color=GREY)
    _name_classes(figure, values.get("class_names") or [])
    return figure


def _line(ax: Axes, values: pd.Series[float], style: str, color: str, text: str) -> None:
    if len(values):
        marker = "o" if len(values) <= 30 else ""
        ax.plot(values.index, 100 * values, style, color=color, label=text, marker=marker, markersize=3, linewidth=1.6)


def _mark_phases(ax: Axes, phases: pd.Series[float]) -> None:
    """Draw a line where the phase of training changes."""
    changes = phases[phases.diff() > 0]
    for round_, phase in changes.items():
        ax.axvline(float(str(round_)) - 0.5, color=GREY, linestyle="-.", linewidth=1, label=f"phase {phase:.0f} begins")


def _image(text: Any) -> Any:
    """Give a base64 picture's pixels (height, width, 3); None if it cannot be read."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(BytesIO(base64.b64decode(str(text)))) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, binascii.Error):
        return None


def _name_classes(figure: Figure, names: list[Any]) -> None:
    from matplotlib.patches import Patch

    if names:
        keys = [Patch(color=_color(kind), label=plain(name)) for kind, name in enumerate(names)]
        figure.legend(handles=keys, loc="outside lower left", ncols=5, fontsize=10, frameon=False)


def _color(kind: Any) -> str:
    return PALETTE[int(kind) % (len(PALETTE) - 1)]


def _draw_boxes(ax: Axes, boxes: list[Any], reliable: float) -> None:
    from matplotlib.patches import Rectangle

    for left, top, right, bottom, kind, *score in boxes:
        sure = not score or score[0] > reliable
        place, sides = (left, top), (right - left, bottom - top)
        style, width = ("-", 1.6) if sure else ("--", 0.8)
        ax.add_patch(Rectangle(place, *sides, fill=False, edgecolor=_color(kind), linestyle=style, linewidth=width))
