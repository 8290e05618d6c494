"""The look of every figure: sizes, colour-blind-safe colours, and writing a PNG atomically."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.files import write_atomically
from fedssl.palette import PALETTE as PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = PALETTE
GREY = "#5a5a5a"
WIDTH = 7.4
DPI = 150


def new_figure(title: str, note: str, height: float, rows: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Give a figure `height` inches high with a title, a grey note below it, and `rows` axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = [ax for row in figure.subplots(rows, 1, squeeze=False, **grid) for ax in row]
    figure.suptitle(plain(title, 90), x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes[0].set_title(plain(note, 110), loc="left", fontsize=10, color=GREY, pad=8)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=10)
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def label(ax: Axes, x: str = "", y: str = "") -> None:
    """Name the axes."""
    ax.set_xlabel(plain(x, 80), fontsize=11)
    ax.set_ylabel(plain(y, 60), fontsize=11)


def legend(figure: Figure, axes: list[Axes], columns: int = 3) -> None:
    """Put one legend for all axes under them, where it covers no data."""
    entries: dict[str, Any] = {}
    for ax in axes:
        handles, names = ax.get_legend_handles_labels()
        entries |= {n: h for n, h in zip(names, handles, strict=True) if n not in entries}
    if entries:
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower left",
            ncols=columns,
            fontsize=10,
            frameon=False,
        )


def plain(text: object, limit: int = 26) -> str:
    """Give text that matplotlib shows as it is, on one line, cut to `limit` characters."""
    line = " ".join(str(text).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return line.replace("$", r"\$")


def whole_rounds(ax: Axes) -> None:
    """Let the round axis have whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1, steps=[1, 2, 5, 10]))


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    with warnings.catch_warnings():
        # A class name may have letters the font lacks; they show as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", dpi=DPI)
    write_atomically(path, buffer.getvalue())
    return path
