"""The page of one run: complete, self-contained, and built from partial runs too."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedssl.config import ConfigError
from fedssl.report import build

FIGURES = ["clients", "cost", "pseudo", "reliability", "scores", "split"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [values[key] for key in ("src", "href") if key in values]
        if tag == "img":
            self.images.append(values)


def _tags(page: Path) -> _Tags:
    parser = _Tags()
    parser.feed(page.read_text())
    return parser


def test_a_whole_run(make_run: Callable[..., Path]) -> None:
    directory = make_run()
    page = build(directory)
    text = page.read_text()
    assert page == directory / "report.html"
    assert sorted(path.stem for path in (directory / "figures").iterdir()) == FIGURES
    assert "The global model ended at a test accuracy of 82.0% (round 12)" in text
    assert "validation is 11, with 81.2% on test" in text
    assert "Client 3 failed in rounds 3-4: ValueError: loss is nan" in text
    assert "7 training samples were dropped" in text
    assert "fedssl report run" in text
    order = ["Before you read", "Final and best", "Scores by", "Configuration", "Environment"]
    places = [text.index(f">{heading}") for heading in order]
    assert places == sorted(places)


def test_it_is_self_contained(make_run: Callable[..., Path]) -> None:
    tags = _tags(build(make_run()))
    assert len(tags.images) == len(FIGURES)
    assert all(str(link).startswith("data:image/png;base64,") for link in tags.links)
    assert all(len(str(image["alt"])) > 20 for image in tags.images)
    assert not {"script", "link", "iframe"} & set(tags.tags)


def test_rebuilding_gives_the_same_bytes(make_run: Callable[..., Path]) -> None:
    directory = make_run(rounds=2)
    first = build(directory).read_bytes()
    assert build(directory).read_bytes() == first


def test_hostile_names_are_escaped(make_run: Callable[..., Path]) -> None:
    hostile = "<script>alert(1)</script>"
    directory = make_run(method=hostile, classes=("$x", "<b>$\\frac{$", "\N{CJK UNIFIED IDEOGRAPH-72AC}"))
    page = build(directory)
    assert "script" not in _tags(page).tags
    assert "&lt;script&gt;" in page.read_text()


@pytest.mark.parametrize(
    "gone",
    [
        ("summary.json",),
        ("split.npz", "reliability.json"),
        ("summary.json", "split.npz", "reliability.json", "clients.parquet", "environment.json"),
    ],
)
def test_missing_files_are_named(make_run: Callable[..., Path], gone: tuple[str, ...]) -> None:
    directory = make_run(rounds=4)
    for name in gone:
        (directory / name).unlink()
    text = build(directory).read_text()
    assert all(name in text for name in gone)
    assert ("This run is unfinished" in text) == ("summary.json" in gone)
    assert "The global model ended at" in text


def test_a_run_without_a_round(make_run: Callable[..., Path]) -> None:
    directory = make_run()
    (directory / "metrics.jsonl").write_text("")
    for name in ("summary.json", "reliability.json", "clients.parquet"):
        (directory / name).unlink()
    text = build(directory).read_text()
    assert "No model was scored on test samples; the journal holds 0 rounds." in text
    assert "0 of 12 rounds are in the journal" in text
    assert len(re.findall("<img", text)) == 1


def test_no_pyplot_is_used(make_run: Callable[..., Path]) -> None:
    build(make_run(rounds=1))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a run directory"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_without_validation(make_run: Callable[..., Path]) -> None:
    directory = make_run(rounds=2)
    records = [{"round": i, "test": {"accuracy": 0.5}, "clients": {"0": None}} for i in (1, 2)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "metrics.jsonl").write_text(lines)
    (directory / "config.yaml").write_text("method: {name: fedavg}\n")
    (directory / "summary.json").write_text('{"status": "stopped", "best": null}')
    text = build(directory).read_text()
    assert "This run is stopped" in text
    assert "No best round: nothing was scored on validation samples." in text


def test_a_run_of_the_clients_own_models_says_so(make_personal_run: Callable[..., Path]) -> None:
    directory = make_personal_run()
    text = build(directory).read_text()
    assert "The clients&#39; own models ended at a mean test accuracy of 82.0% (round 12)" in text
    assert "validation is 11, with 81.2% on test" in text
    assert "lobal model" not in text
    assert ("Over clients: accuracy, clients&#39; own models" in text, "reliability.json" in text) == (True, False)
    assert {"scores", "clients"} <= {path.stem for path in (directory / "figures").iterdir()}


def test_a_stopped_run_of_the_clients_own_models(make_personal_run: Callable[..., Path]) -> None:
    directory = make_personal_run()
    (directory / "summary.json").unlink()
    assert "own models ended at a mean test accuracy of 82.0% (round 12)" in build(directory).read_text()
