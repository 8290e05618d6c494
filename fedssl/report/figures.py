"""Figures of a run's page: each is declared beside the function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedssl.metrics.base import PERSONAL
from fedssl.registry import Catalogue

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Draw = TypeVar("Draw", bound=Callable[..., Figure | None])


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page; see `register`."""

    name: str
    title: str
    caption: str
    order: float
    takes: tuple[str, ...]
    files: tuple[str, ...]
    metrics: tuple[str, ...]
    function: Callable[..., Figure | None]

    def draw(self, directory: Path, material: Mapping[str, Any]) -> Figure | None:
        """Return the figure; None if what it needs is not there."""
        if not set(self.takes) <= set(material) or not all((directory / file).exists() for file in self.files):
            return None
        if self.metrics and not any(self._shows(name) for name in material["names"]):
            return None
        return self.function(*(material[name] for name in self.takes))

    def _shows(self, name: str) -> bool:
        base = name.removeprefix(PERSONAL)
        return any(base == metric or base.startswith(f"{metric}_") for metric in self.metrics)


MATERIAL = (
    "table", "clients", "metric", "best_round", "final", "records", "split", "world", "method", "reliability",
)  # fmt: skip
"""What figures are drawn from; see `page.material_of`."""
FIGURES: Catalogue[ReportFigure] = Catalogue("figure", "fedssl.report")


def register(
    name: str,
    title: str,
    caption: str,
    *,
    order: float,
    takes: Sequence[str],
    files: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> Callable[[Draw], Draw]:
    """Declare a figure of the page, `figures/<name>.png`, and decorate the function that draws it, or returns None.

    `takes` are its arguments, of `MATERIAL`. The page leaves the figure out unless all `files` are in the run
    directory, one of `metrics`, or of their families, was written, and all that it takes is there. Raises ValueError
    on a name taken, and on an argument that there is not.
    """
    if unknown := set(takes) - set(MATERIAL):
        raise ValueError(f"figure={name} takes {', '.join(sorted(unknown))}, which is none of {', '.join(MATERIAL)}")

    def add(function: Draw) -> Draw:
        made = ReportFigure(name, title, caption, order, tuple(takes), tuple(files), tuple(metrics), function)
        FIGURES.add(name, made)
        return function

    return add
