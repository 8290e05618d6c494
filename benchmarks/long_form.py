"""Reads a published table in long form and puts text made from it between a page's markers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fedssl.report.intervals import Interval, paired_difference, t_interval

BEGIN, END = "<!-- results -->", "<!-- /results -->"
Values = Mapping[int, float]
"""The value of each seed."""


class Scores:
    """The scores of the last rounds by method, variant, setting and metric."""

    def __init__(self, path: Path) -> None:
        rows = pd.read_csv(path, keep_default_na=False)
        self.rows = rows[rows["round"] == "last"]

    def values(self, method: str, variant: str, setting: str, metric: str) -> dict[int, float]:
        """Give the value of each seed; none where the table has no such run."""
        chosen = self._of(method, variant, setting)
        chosen = chosen[chosen.metric == metric]
        return {int(seed): float(value) for seed, value in zip(chosen.seed, chosen.value, strict=True)}

    def seeds(self, method: str, variant: str, setting: str) -> set[int]:
        """Give the seeds of the runs that the table has."""
        return {int(seed) for seed in self._of(method, variant, setting).seed.unique()}

    def _of(self, method: str, variant: str, setting: str) -> pd.DataFrame:
        rows = self.rows
        return rows[(rows.method == method) & (rows.variant == variant) & (rows.setting == setting)]


def mean(values: Values) -> Interval:
    """Give the interval over seeds; NaN without any."""
    return t_interval([values[seed] for seed in sorted(values)])


def difference(a: Values, b: Values) -> Interval:
    """Give the interval of `b - a` over the seeds that both have; NaN without any."""
    shared = a.keys() & b.keys()
    if len(shared) == 1:
        return mean({seed: b[seed] - a[seed] for seed in shared})
    found = paired_difference({seed: a[seed] for seed in shared}, {seed: b[seed] for seed in shared})
    return found or Interval(math.nan, math.nan, 0)


def percent(found: Interval, sign: str = "") -> str:
    """Give mean and half-width in percent; the mean alone where one value has no interval, nothing for none."""
    if math.isnan(found.mean):
        return ""
    half = "" if math.isnan(found.half) else f" ± {100 * found.half:.1f}"
    return f"{100 * found.mean:{sign}.1f}{half}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Give a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)


def fill(page: Path, parts: list[str]) -> None:
    """Put the parts between the page's markers."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(before + BEGIN + "\n" + "\n\n".join(parts) + "\n" + END + after, encoding="utf-8")
