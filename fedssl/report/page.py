"""The page of one run: tables and figures in one self-contained HTML file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.files import write_atomically
from fedssl.report import clusters, detection, open_world, reliability, rounds, split, spread, tables, users
from fedssl.report.canvas import save
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
CAPTIONS = {
    "scores": (
        "Scores by round",
        "A star marks the round that was best on validation; test scores never choose it.",
    ),
    "kinds": (
        "Seen and unseen classes",
        "Seen classes count by name. Unseen ones count after the best one-to-one matching of predicted ids to classes, "
        "on each line's own samples: locally and globally unseen classes may both claim an id, all together may not.",
    ),
    "confusion": (
        "Confusion after matching",
        "One matching over all test samples, last round; lines part the kinds of classes. A column that is dark in "
        "two rows holds two classes in one cluster.",
    ),
    "features": (
        "Features and global centroids",
        "Principal directions of the test samples' unit features, last round. Markers tell kinds of classes, stars are "
        "the server's centroids: seen ones named as in training, the others by the test samples that fit best. A star "
        "amid its own class is what the method aims at.",
    ),
    "shares": (
        "Bias of predictions",
        "Above: predicted shares (solid) against true ones (dashed); a gap is the bias that open-world methods fight. "
        "Below: the gap by class, orange where a class is predicted too often. Ids of unseen classes have the names "
        "that fit the last round's test samples best.",
    ),
    "clients": (
        "Spread over clients",
        "Every client on its own test samples, in rising order of the bars.",
    ),
    "mixture": (
        "Mixtures",
        "How each client mixes the classifiers that it was sent, as its labels ask for; equal ones where it has none.",
    ),
    "visits": (
        "Visits",
        "How much of the server's labelled windows the clients' autoencoders give back well enough for a "
        "classifier to learn from, and how well they give back the clients' own.",
    ),
    "embeddings": (
        "Embeddings",
        "Clients that lie close to each other are given similar models.",
    ),
    "reconstructions": (
        "Reconstructions",
        "Test windows of clients from the worst score to the best, beside what the autoencoder that the server "
        "generated for them, before their own training, makes of these.",
    ),
    "reliability": (
        "Reliability",
        "On the dotted line confidence equals accuracy; below it the model is over-confident.",
    ),
    "pseudo": (
        "Pseudo-labels",
        "How much of the unlabelled data the method used and, where its truth is known, how much of that was right.",
    ),
    "domains": (
        "Weather",
        "Mean average precision on the same test pictures in each weather. Solid: the global model; dashed: clients' "
        "own models after local training; dotted: the model after the server's warm-up, under which none should end.",
    ),
    "classes": (
        "Classes",
        "A rare class has few boxes, so its precision is coarse.",
    ),
    "pseudo_boxes": (
        "Pseudo-boxes",
        "Quality of the boxes that clients train on, against true boxes that no training sees, and how many there are.",
    ),
    "pictures": (
        "Pictures",
        "The same test pictures in each weather: true boxes, and what the model finds as training goes on. Colours "
        "tell classes; solid boxes score above tau2, as pseudo-boxes that count as labels do, dashed ones below; those "
        "under 0.25 are left out.",
    ),
    "split": (
        "The split",
        "Training samples by client and class, the server's beside them; labelled ones by the label that was told, "
        "pictures with boxes by their rarest class.",
    ),
    "cost": (
        "Cost",
        "Megabytes (10^6 bytes) between server and clients, summed over rounds; seconds a round.",
    ),
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


def _figures(run: Run, result: tables.Outcome, held: split.SplitCounts | None) -> list[Shown]:
    table, clients = rounds_table(run.records), clients_table(run)
    best = int(result.best["round"]) if "round" in result.best else None
    world = open_world.open_world_of(run.open_world)
    pseudo_boxes = detection.pseudo_boxes_figure(table)
    drawn = {
        "scores": rounds.scores_figure(table, clients, result.metric, best),
        "domains": detection.domains_figure(table),
        "classes": detection.classes_figure(result.final),
        "kinds": open_world.kinds_figure(table, result.metric),
        "confusion": clusters.confusion_figure(world) if world else None,
        "features": clusters.features_figure(world) if world else None,
        "shares": open_world.shares_figure(table, run.records, held, world) if world and held else None,
        "clients": spread.spread_figure(clients, result.metric),
        "mixture": users.mixture_figure(clients, result.metric),
        "visits": users.visits_figure(table),
        "embeddings": users.embeddings_figure(run.method, clients, result.metric),
        "reconstructions": users.reconstructions_figure(run.method, clients, result.metric),
        "reliability": reliability.reliability_figure(run.reliability),
        "pseudo_boxes": pseudo_boxes,
        "pseudo": rounds.pseudo_figure(table) if pseudo_boxes is None else None,
        "pictures": detection.pictures_figure(run.method),
        "split": split.split_figure(held) if held is not None else None,
        "cost": rounds.cost_figure(table),
    }
    folder = run.directory / "figures"
    return [
        show(figure, folder / f"{name}.png", *CAPTIONS[name]) for name, figure in drawn.items() if figure is not None
    ]


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
