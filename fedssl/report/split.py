"""Figure of the split: which client holds which classes, with and without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.config import ConfigError
from fedssl.report.canvas import BLACK, label, new_figure, plain, save
from fedssl.report.figures import register

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_COUNTS_SHOWN = 20
MAX_NAMES = 20
_BESIDE_SERVER = 0.05
"""Share of the clients that has no tick, so that the server's has room."""


@dataclass(frozen=True)
class SplitCounts:
    """Samples by client and class: int64 (clients, classes + 1).

    `labelled` ends with scenes without boxes; `unlabelled` is by true class and ends with samples of unknown class.
    `server` are the server's labelled ones, as `labelled`; empty if it has none.
    """

    labelled: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    class_names: tuple[str, ...]
    num_dropped: int = 0
    server: Sequence[int] = ()

    @property
    def num_unknown(self) -> int:
        """Give the number of unlabelled samples without a known class."""
        return int(self.unlabelled[:, -1].sum())


def read_split(path: Path) -> SplitCounts:
    """Count a `split.npz`. Raises ConfigError if it is none."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            offsets, given, truth = (arrays[key] for key in ("train_offsets", "label", "truth"))
            names = tuple(str(name) for name in arrays["class_names"])
            dropped, own = arrays.get("dropped", np.zeros(0)), arrays.get("server_label", np.zeros(0, np.int64))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ConfigError("report", str(path), f"a split.npz ({error})") from None
    client = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    shape = (len(offsets) - 1, len(names) + 1)
    has_label = given != -1
    column = np.where(has_label, given, truth)
    column = np.where(column >= 0, column, len(names))
    counts = np.zeros((2, *shape), dtype=np.int64)
    np.add.at(counts, (has_label.astype(int), client, column), 1)
    num_dropped = int(dropped) if dropped.ndim == 0 else len(dropped)
    server = np.bincount(np.where(own >= 0, own, len(names)), minlength=len(names) + 1).tolist() if len(own) else ()
    return SplitCounts(counts[1], counts[0], names, num_dropped, tuple(server))


def draw_split(split_npz: Path, png: Path) -> Path:
    """Draw a `split.npz` to a PNG file. Raises ConfigError if it is none."""
    return save(split_figure(read_split(split_npz)), png)


@register(
    "split",
    "The split",
    "Training samples by client and class, the server's beside them; labelled ones by the label that was told, "
    "pictures with boxes by their rarest class.",
    order=170,
    takes=("split",),
    files=("split.npz",),
)
def split_figure(split: SplitCounts) -> Figure:
    """Draw clients, and the server last, against classes, labelled above unlabelled, one colour scale each."""
    import numpy as np

    names = [plain(name, 18) for name in split.class_names]
    number, server = len(split.labelled), np.array(split.server or [0] * (len(names) + 1))
    above, below = split.labelled, split.unlabelled
    if server.any():
        above, below = np.vstack([above, server]), np.vstack([below, np.zeros_like(server)])
    rows = min(len(names) + bool(split.num_unknown), MAX_NAMES)
    height = 1.6 + 2 * max(1.5, 0.26 * rows + 0.6)
    sums = f"{split.labelled.sum():,} labelled, {split.unlabelled.sum():,} unlabelled samples"
    note = f"n = {number} clients; {sums}; white: none"
    if server.any():
        note = f"server: {server.sum():,} labelled samples; {note}"
    figure, axes = new_figure("Who holds what", note, height, 2, sharex=True)
    for ax, counts, cmap, text, rest in (
        (axes[0], above, "Oranges", "labelled samples", "no boxes"),
        (axes[1], below, "Blues", "unlabelled samples", "unknown"),
    ):
        shown = [*names, rest] if counts[:, -1].any() else names
        _heatmap(ax, counts[:, : len(shown)], shown, cmap, text)
        if server.any():
            ticks = [place for place in ax.get_xticks() if 0 <= place < number * (1 - _BESIDE_SERVER)]
            ax.set_xticks([*ticks, number], [*(f"{place:.0f}" for place in ticks), "server"])
    label(axes[0], y="label")
    label(axes[1], "client", "true class")
    return figure


def _heatmap(ax: Axes, counts: NDArray[np.int64], names: list[str], cmap: str, text: str) -> None:
    import matplotlib
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.ticker import MaxNLocator

    # The map starts at a quarter of its range, so that a single sample stands out from none.
    colors: Any = matplotlib.colormaps[cmap](np.linspace(0.22, 1, 256))
    top = max(int(counts.max(initial=1)), 2)
    image = ax.imshow(
        np.ma.masked_equal(counts.T, 0),
        cmap=LinearSegmentedColormap.from_list(cmap, colors),
        norm=PowerNorm(0.5, vmin=1, vmax=top),
        aspect="auto",
        interpolation="nearest",
    )
    ticks = list(range(0, len(names), -(-len(names) // MAX_NAMES)))
    ticks[-1:] = [len(names) - 1]
    ax.set_yticks(ticks, [names[tick] for tick in ticks])
    ax.xaxis.set_major_locator(
        MaxNLocator(
            integer=True,
            nbins=min(len(counts), MAX_COUNTS_SHOWN) if len(counts) <= 100 else 10,
            min_n_ticks=1,
        )
    )
    ax.grid(visible=False)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01, fraction=0.04, aspect=12)
    bar.set_label(text, fontsize=10)
    marks = np.unique(np.round(np.linspace(1, top**0.5, 4) ** 2))
    bar.set_ticks(marks.tolist(), labels=[f"{mark:.0f}" for mark in marks])
    bar.ax.tick_params(labelsize=9)
    if len(counts) <= MAX_COUNTS_SHOWN and len(names) <= MAX_NAMES:
        _write_counts(ax, counts, top)


def _write_counts(ax: Axes, counts: NDArray[np.int64], top: int) -> None:
    size = 9 if len(counts) <= 12 else 7
    for client, row in enumerate(counts):
        for place, value in enumerate(row):
            if value:
                color = "white" if value - 1 > 0.35 * (top - 1) else BLACK
                ax.text(client, place, str(value), ha="center", va="center", fontsize=size, color=color)
