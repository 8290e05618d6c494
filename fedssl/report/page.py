"""The page of one run: tables and figures in one self-contained HTML file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.files import write_atomically
from fedssl.report import open_world, split, tables
from fedssl.report.canvas import save
from fedssl.report.figures import FIGURES
from fedssl.report.run import Run, clients_table, read, rounds_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shown:
    """A figure on a page: heading, caption, alternative text and the image as a data URI."""

    heading: str
    caption: str
    alt: str
    uri: str


FILES = {
    "config.yaml": "the resolved experiment",
    "environment.json": "versions and machine",
    "split.npz": "who holds which samples and labels",
    "metrics.jsonl": "one object a round",
    "clients.parquet": "one row a client and evaluation",
    "reliability.json": "confidence, accuracy and count by bin",
    "method.json": "what the method tells: embeddings, reconstructions, boxes on pictures",
    "open_world.json": "kinds of classes, matching, confusion matrix and a plane of features",
    "summary.json": "final and best values",
    "model.safetensors": "the final model",
    "model.json": "how to load the model",
    "checkpoint": "what a resumed run starts from",
    "figures": "the figures of this page as PNG",
}


def build(directory: Path) -> Path:
    """Write `figures/*.png` and `report.html` into a run directory; give the page's path.

    Raises ConfigError if it is no run directory.
    """
    run = read(Path(directory))
    result = tables.outcome(run)
    held = split.read_split(run.directory / "split.npz") if "split.npz" not in run.missing else None
    groups = ("method", "data", "model", "partition", "labels", "calibration", "personalization")
    html = render(
        "page.html.j2",
        run=run,
        choices={group: run.choice(group) for group in groups},
        seed=run.config.get("seed", "unknown"),
        sentence=tables.sentence(run, result),
        warnings=tables.warnings(run, held),
        result=result,
        values=tables.values_table(result),
        spread={key: tables.shown(result.metric, value) for key, value in _spread(result).items()},
        gini=result.spread.get("gini"),
        main_title=tables.title(result.metric),
        figures=_figures(run, result, held),
        config=tables.flatten(run.config),
        environment=tables.flatten(run.environment),
        files={name: text for name, text in FILES.items() if (run.directory / name).exists()},
    )
    return write(run.directory / "report.html", html)


def _spread(result: tables.Outcome) -> dict[str, float]:
    names = ("mean", "std", "p10", "min", "max")
    return {name: result.spread[name] for name in names if name in result.spread}


def material_of(run: Run, result: tables.Outcome, held: split.SplitCounts | None) -> dict[str, Any]:
    """Return what figures are drawn from, by the names in which they ask for it.

    `table` is `rounds_table`, `clients` is `clients_table`; `metric` the main one, `best_round` chosen on validation;
    `final` the last scores; `records` the journal; `split`, `world`, `method` and `reliability` what the files of these
    names say, if they can be used; `names` all metrics of the run.
    """
    table, clients = rounds_table(run.records), clients_table(run)
    read_files = {"split": held, "world": open_world.open_world_of(run.open_world)}
    return {
        **{name: value for name, value in read_files.items() if value is not None},
        "table": table,
        "clients": clients,
        "metric": result.metric,
        "best_round": int(result.best["round"]) if "round" in result.best else None,
        "final": result.final,
        "records": run.records,
        "method": run.method,
        "reliability": run.reliability,
        "names": {*table["metric"], *clients.columns, *result.final},
    }


def _figures(run: Run, result: tables.Outcome, held: split.SplitCounts | None) -> list[Shown]:
    material, folder = material_of(run, result, held), run.directory / "figures"
    every = sorted(FIGURES.values(), key=lambda each: each.order)
    drawn = [(each, each.draw(run.directory, material)) for each in every]
    return [show(made, folder / f"{each.name}.png", each.title, each.caption) for each, made in drawn if made]


def show(figure: Figure, path: Path, heading: str, caption: str) -> Shown:
    """Write a figure and give it ready for a page."""
    data = base64.b64encode(save(figure, path).read_bytes()).decode("ascii")
    x = next((ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()), "")
    axes = "; ".join(ax.get_ylabel() for ax in figure.axes if ax.get_ylabel())
    return Shown(heading, caption, f"{heading}: {axes}, by {x}", f"data:image/png;base64,{data}")


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def write(path: Path, text: str) -> Path:
    """Write a text file atomically, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("utf-8", errors="replace"))
    return path
