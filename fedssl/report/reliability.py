"""Reliability diagram: does a confidence of 80 % mean right in 80 % of cases?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedssl.report.canvas import BLUE, GREY, VERMILLION, label, legend, new_figure
from fedssl.report.figures import register

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Bins = dict[str, NDArray[np.float64]]

KINDS = (
    ("uncalibrated", "before calibration", VERMILLION, "s--"),
    ("calibrated", "after calibration", BLUE, "o-"),
)


def bins_of(values: Any) -> Bins | None:
    """Give confidence, accuracy and count of the bins that hold samples; None if there are none."""
    import numpy as np

    if not isinstance(values, dict):
        return None
    names = ("confidence", "accuracy", "count")
    arrays = {name: np.asarray(values.get(name) or [], dtype=float) for name in names}
    if len({len(array) for array in arrays.values()}) != 1:
        return None
    filled = np.nan_to_num(arrays["count"]) > 0
    return {name: array[filled] for name, array in arrays.items()} if filled.any() else None


def calibration_error(bins: Bins) -> float:
    """Give the expected calibration error, sum of n_b/n |acc - conf| (Guo 2017, eq. 5)."""
    gaps = abs(bins["accuracy"] - bins["confidence"])
    return float(bins["count"] @ gaps / bins["count"].sum())


@register(
    "reliability",
    "Reliability",
    "On the dotted line confidence equals accuracy; below it the model is over-confident.",
    order=130,
    takes=("reliability",),
    files=("reliability.json",),
)
def reliability_figure(reliability: dict[str, Any]) -> Figure | None:
    """Draw accuracy against confidence, and how many samples each bin holds; None without any."""
    kinds = [(bins_of(reliability.get(key)), text, color, style) for key, text, color, style in KINDS]
    drawn = [(bins, text, color, style) for bins, text, color, style in kinds if bins is not None]
    if not drawn:
        return None
    number = int(drawn[0][0]["count"].sum())
    note = f"n = {number} test samples; one mark a bin of confidence, empty bins left out"
    ratios = {"height_ratios": [3, 1]}
    figure, axes = new_figure("Reliability of confidences", note, 6.6, 2, sharex=True, gridspec_kw=ratios)
    axes[0].plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle=":", label="perfect")
    single = len(drawn) == 1
    for shift, (bins, text, color, style) in enumerate(drawn):
        text = "no calibration" if single and color == VERMILLION else text
        name = f"{text}: ECE {calibration_error(bins):.3f}"
        x = 100 * bins["confidence"]
        axes[0].plot(x, 100 * bins["accuracy"], style, color=color, label=name, markersize=6, linewidth=1.8)
        offset = 0 if single else 2.4 * shift - 1.2
        axes[1].bar(x + offset, bins["count"], width=2.4, color=color)
    axes[0].set(xlim=(-2, 102), ylim=(-2, 102))
    label(axes[0], y="accuracy (%)")
    label(axes[1], "confidence, mean of the bin (%)", "samples")
    if any(bins["count"].max() > 100 * bins["count"].min() for bins, *_ in drawn):
        axes[1].set_yscale("log")
        label(axes[1], axes[1].get_xlabel(), "samples (log)")
    legend(figure, axes)
    return figure
