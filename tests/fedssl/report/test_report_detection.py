"""Tests of fedssl.report.detection: figures by weather, class and round, and boxes on pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedssl.metrics.base import metric_of
from fedssl.report import detection, page
from fedssl.report.run import read, rounds_table
from fedssl.report.tables import outcome_warnings, shown, title, warnings


def record(round_: int, **scores: float) -> dict[str, Any]:
    train = {"phase": 1 if round_ < 3 else 2, "warm_up_map50_rainy": 0.2, "pseudo_per_image": 1.5}
    train |= {"pseudo_reliable_per_image": 0.5, "pseudo_precision": 0.75, "pseudo_coverage": 0.4}
    return {"round": round_, "train": train, "test": scores}


def rows() -> list[dict[str, Any]]:
    return [
        record(i, map50=0.1 * i, map50_rainy=0.05 * i, map50_snowy=0.2, map50_total=0.1, personal_map50_rainy=0.07 * i)
        for i in range(1, 5)
    ]


def lines(ax) -> dict[str, list[float]]:
    return {str(line.get_label()): [float(y) for y in np.ravel(line.get_ydata())] for line in ax.lines}


def test_precision_by_weather_in_percent_with_the_warm_up_and_the_change_of_phase():
    figure = detection.domains_figure(rounds_table(rows()))
    assert figure is not None
    drawn = lines(figure.axes[0])
    assert drawn["rainy"] == pytest.approx([5, 10, 15, 20])
    assert drawn["rainy, clients' own"] == pytest.approx([7, 14, 21, 28])
    assert drawn["mean over weathers"] == pytest.approx([10] * 4)
    assert "snowy, clients' own" not in drawn
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [np.ravel(line.get_ydata())[0] for line in dotted] == pytest.approx([20])
    assert [np.ravel(line.get_xdata())[0] for line in figure.axes[0].lines if line.get_linestyle() == "-."] == [2.5]


def test_no_weather_and_no_boxes_draw_nothing():
    empty = rounds_table([{"round": 1, "train": {"pseudo_mask_rate": 0.5}, "test": {"accuracy": 0.5}}])
    assert detection.domains_figure(empty) is None
    assert detection.classes_figure({"accuracy": 0.5, "round": 3}) is None
    assert detection.pseudo_boxes_figure(empty) is None
    assert detection.pictures_figure({}) is None
    assert detection.pictures_figure({"pictures": [{"picture": "no picture"}, 3]}) is None


def test_classes_are_bars_in_percent_with_their_mean():
    figure = detection.classes_figure({"ap50_stop": 0.25, "ap50_crosswalk": 0.75, "map50": 0.5, "round": 4})
    assert figure is not None
    assert [bar.get_width() for bar in figure.axes[0].patches] == [25, 75]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["stop", "crosswalk"]
    (mean,) = figure.axes[0].lines
    assert (list(np.ravel(mean.get_xdata())), mean.get_label()) == ([50, 50], "mean over classes: 50.0 %")


def test_pseudo_boxes_by_round():
    figure = detection.pseudo_boxes_figure(rounds_table(rows()))
    assert figure is not None
    above, below = (lines(ax) for ax in figure.axes)
    assert above["precision: reliable boxes that are right"] == pytest.approx([75] * 4)
    assert above["recall: true boxes found by reliable ones"] == pytest.approx([40] * 4)
    assert below["all pseudo-boxes"] == pytest.approx([1.5] * 4)
    assert below["reliable ones"] == pytest.approx([0.5] * 4)


def pictured(**stages: list[list[float]]) -> dict[str, Any]:
    file = BytesIO()
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(file, "JPEG")
    picture = base64.b64encode(file.getvalue()).decode()
    return {"weather": "snowy", "picture": picture, "true": [[1, 2, 11, 22, 0]], **stages}


def test_found_boxes_are_solid_when_sure_and_stages_are_in_the_order_of_time():
    row = pictured(end=[[1, 2, 11, 22, 0, 0.9], [5, 5, 9, 9, 1, 0.2]], after=[], before=[])
    figure = detection.pictures_figure({"pictures": [row, pictured(end=[])], "class_names": ["car", "bus"]})
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["car", "bus"]
    true, before, after, end = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["true boxes", *detection.STAGES.values()]
    assert true.get_ylabel() == "snowy"
    (box,) = true.patches
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((1, 2), 10, 20)
    assert not before.patches
    assert not after.patches
    assert [box.get_linestyle() for box in end.patches] == ["-", "--"]
    sure = detection.pictures_figure({"pictures": [row], "reliable": 0.95})
    assert sure is not None
    assert [box.get_linestyle() for box in sure.axes[-1].patches] == ["--", "--"]
    assert end.patches[0].get_edgecolor() == box.get_edgecolor() != end.patches[1].get_edgecolor()


def test_metrics_of_boxes_have_names_and_units():
    assert title("map50_snowy") == "mAP at IoU 0.50, snowy"
    assert title("ap50_stop") == "AP at IoU 0.50, stop"
    assert title("personal_map50_total") == "mAP at IoU 0.50, mean over weathers, clients' own models"
    assert metric_of("ap50_stop").is_share
    assert shown("personal_map50", 0.25) == "25.0%"


def test_a_page_shows_the_figures_of_a_detector(make_run: Callable[..., Path]):
    directory = make_run(rounds=4)
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for made, own in zip(records, rows(), strict=True):
        made |= {"train": own["train"], "test": {**own["test"], "ap50_stop": 0.3}}
    (directory / "metrics.jsonl").write_text("".join(json.dumps(made) + "\n" for made in records))
    summary = {"status": "done", "main_metric": "map50", "final": {"round": 4, **records[-1]["test"]}}
    (directory / "summary.json").write_text(json.dumps(summary))
    (directory / "reliability.json").write_text("{}")
    (directory / "method.json").write_text(json.dumps({"pictures": [pictured(end=[[1, 2, 11, 22, 0, 0.9]])]}))
    assert read(directory).main_metric == "map50"
    text = page.build(directory).read_text()
    figures = {path.stem for path in (directory / "figures").iterdir()}
    assert {"domains", "classes", "pseudo_boxes", "pictures", "scores"} <= figures
    assert not {"pseudo", "reliability"} & figures
    assert "mAP at IoU 0.50, rainy" in text
    assert "20.0%" in text


def test_a_run_that_fell_below_its_warm_up_is_warned_of(make_run: Callable[..., Path]):
    directory = make_run(rounds=4)
    told = {"main_metric": "map50_total", "warm_up": {"map50_total": 0.495}, "final": {"map50_total": 0.105}}
    (directory / "method.json").write_text(json.dumps({**told, "collapsed": True}))
    (found,) = [line for line in warnings(read(directory), None) if line.startswith("Collapsed")]
    assert "mAP at IoU 0.50, mean over weathers of 10.5% after 49.5%" in found
    (directory / "method.json").write_text(json.dumps({**told, "collapsed": False}))
    assert not [line for line in warnings(read(directory), None) if line.startswith("Collapsed")]


@pytest.mark.parametrize(
    ("shares", "told"), [([1.0, 1.0], True), ([1.0, None], True), ([1.0, 0.9], False), ([None, None], False)]
)
def test_clients_that_learnt_nothing_are_warned_of(
    shares: list[float | None], told: bool, make_run: Callable[..., Path]
) -> None:
    directory = make_run(rounds=2)
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for record, share in zip(records, shares, strict=True):
        record["train"]["skipped_batches"] = share
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert [line.startswith("No client found a pseudo-box") for line in outcome_warnings(read(directory))] == [
        True
    ] * told
