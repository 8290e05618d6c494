"""From a run directory to tables, figures and one self-contained page; reads files only."""

from __future__ import annotations

from fedssl.report.compare import compare
from fedssl.report.page import build
from fedssl.report.split import draw_split, split_figure

__all__ = ["build", "compare", "draw_split", "split_figure"]
