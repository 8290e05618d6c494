"""Figures show the numbers they were given, with units and names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedssl.config import ConfigError
from fedssl.report.canvas import BLACK, plain
from fedssl.report.reliability import bins_of, calibration_error, reliability_figure
from fedssl.report.rounds import cost_figure, pseudo_figure, scores_figure
from fedssl.report.run import rounds_table
from fedssl.report.split import draw_split, read_split, split_figure
from fedssl.report.spread import spread_figure

EMPTY = pd.DataFrame({"round": [], "client": []})


def test_scores_are_in_percent_and_mark_the_best_round() -> None:
    records = [{"round": i, "test": {"accuracy": i / 10, "loss": 1.0}} for i in (1, 2)]
    figure = scores_figure(rounds_table(records), EMPTY, "accuracy", 2)
    assert figure is not None
    top, bottom = figure.axes
    assert (top.get_ylabel(), bottom.get_ylabel()) == ("accuracy (%)", "loss (nats)")
    lines = {str(line.get_label()): line for line in top.lines}
    assert list(lines["test, global model"].get_ydata()) == pytest.approx([10, 20])
    assert list(lines["best on validation: round 2"].get_xdata()) == [2, 2]


def test_the_band_spans_the_clients() -> None:
    records = [{"round": 1, "test": {"accuracy": 0.5}}]
    clients = pd.DataFrame({"round": 1, "client": range(11), "accuracy": np.arange(11) / 10})
    figure = scores_figure(rounds_table(records), clients, "accuracy", None)
    assert figure is not None
    box = figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert (box.y0, box.y1) == pytest.approx((10, 90))
    assert "band: 10th to 90th percentile" in figure.axes[0].get_title(loc="left")


def test_nothing_scored_draws_nothing() -> None:
    table = rounds_table([{"round": 1}])
    assert scores_figure(table, EMPTY, "accuracy", None) is None
    assert pseudo_figure(table) is None
    assert cost_figure(table) is None
    assert spread_figure(EMPTY, "accuracy") is None
    assert reliability_figure({"uncalibrated": None}) is None


def test_cost_adds_up_in_megabytes() -> None:
    records = [{"round": i, "seconds": 2.0, "bytes_up": 1_500_000} for i in (1, 2)]
    figure = cost_figure(rounds_table(records))
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_ydata()) == [1.5, 3.0]
    assert figure.axes[0].get_ylabel() == "sent so far (MB)"


def test_clients_stand_in_rising_order() -> None:
    clients = pd.DataFrame({"round": 5, "client": [0, 1, 2], "accuracy": [0.9, 0.5, 0.7]})
    figure = spread_figure(clients, "accuracy")
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2", "0"]
    assert figure.axes[0].lines[0].get_label() == "mean, global: 70"


def test_calibration_error_by_hand() -> None:
    # (30 * |0.5 - 0.6| + 10 * |1.0 - 0.9|) / 40 = 0.1; the empty bin counts for nothing.
    values = {"confidence": [0.0, 0.6, 0.9], "accuracy": [0.0, 0.5, 1.0], "count": [0, 30, 10]}
    bins = bins_of(values)
    assert bins is not None
    assert calibration_error(bins) == pytest.approx(0.1)
    figure = reliability_figure({"uncalibrated": values, "calibrated": None})
    assert figure is not None
    assert "no calibration: ECE 0.100" in [line.get_label() for line in figure.axes[0].lines]


def _save_split(path: Path, truth: list[int], **more: np.ndarray) -> None:
    arrays = {
        "train_index": np.arange(5),
        "train_offsets": np.array([0, 2, 5]),
        "label": np.array([1, -1, 0, -1, -1]),
        "truth": np.array(truth),
        "class_names": np.array(["cat", "dog $x$"]),
        "dropped": np.zeros(0, int),
    }
    np.savez(path, **{**arrays, **more})


def test_split_is_counted_by_hand(tmp_path: Path) -> None:
    _save_split(tmp_path / "split.npz", [1, 0, 0, 1, -1])
    split = read_split(tmp_path / "split.npz")
    assert split.labelled.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert split.unlabelled.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert (split.num_unknown, split.num_dropped) == (1, 0)


@pytest.mark.parametrize(("last", "names"), [(-1, ["cat", "dog $x$", "unknown"]), (1, ["cat", "dog $x$"])])
def test_unknown_has_a_row_of_its_own(tmp_path: Path, last: int, names: list[str]) -> None:
    _save_split(tmp_path / "split.npz", [1, 0, 0, 1, last])
    figure = split_figure(read_split(tmp_path / "split.npz"))
    shown = [label.get_text().replace(r"\$", "$") for label in figure.axes[1].get_yticklabels()]
    assert shown == names
    assert figure.axes[1].get_xlabel() == "client"


def test_the_server_stands_beside_the_clients(tmp_path: Path) -> None:
    _save_split(tmp_path / "split.npz", [1, 0, 0, 1, -1], server_label=np.array([1, 1, 0, -1]))
    split = read_split(tmp_path / "split.npz")
    assert split.server == (1, 2, 1)
    above, below = split_figure(split).axes[:2]
    assert [label.get_text() for label in above.get_yticklabels()][-1] == "no boxes"
    assert {(text.get_position(), text.get_text()) for text in above.texts} >= {((2, 1), "2"), ((2, 2), "1")}
    assert not [text for text in below.texts if text.get_position()[0] == 2]
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "1", "server"]
    assert [label.get_text() for label in below.get_yticklabels()][-1] == "unknown"


def test_clients_scenes_without_boxes_are_labelled_ones(tmp_path: Path) -> None:
    _save_split(tmp_path / "split.npz", [1, 0, 0, 1, -1], label=np.array([1, -1, 0, -1, -2]))
    split = read_split(tmp_path / "split.npz")
    assert split.labelled.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert split.unlabelled.tolist() == [[1, 0, 0], [0, 1, 0]]
    above = split_figure(split).axes[0]
    assert [label.get_text() for label in above.get_yticklabels()][-1] == "no boxes"
    # The palest colour is that of a single sample, on which white would not be read.
    assert {text.get_color() for text in above.texts} == {BLACK}


def test_the_server_is_named_beside_many_clients(make_run: Callable[..., Path]) -> None:
    split = read_split(make_run(clients=99, rounds=1) / "split.npz")
    held = [1] * (len(split.class_names) + 1)
    figure = split_figure(replace(split, server=held))
    labels = figure.axes[1].get_xticklabels()
    assert labels[-1].get_text() == "server"
    assert labels[-1].get_position()[0] == 99


def test_many_clients_and_classes_thin_their_ticks(make_run: Callable[..., Path]) -> None:
    classes = tuple(f"class {i}" for i in range(60))
    directory = make_run(clients=300, rounds=1, classes=classes)
    figure = split_figure(read_split(directory / "split.npz"))
    assert len(figure.axes[0].get_yticks()) <= 20
    assert figure.axes[1].get_yticklabels()[-1].get_text() == "unknown"
    assert not figure.axes[0].texts


def test_draw_split_writes_a_png(tmp_path: Path) -> None:
    _save_split(tmp_path / "split.npz", [1, 0, 0, 1, 1])
    path = draw_split(tmp_path / "split.npz", tmp_path / "figures" / "split.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [item.name for item in path.parent.iterdir()] == ["split.png"]


def test_a_file_that_is_no_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "split.npz").write_text("no archive")
    with pytest.raises(ConfigError, match=r"split\.npz"):
        read_split(tmp_path / "split.npz")


def test_plain_is_one_short_line_without_formulas() -> None:
    assert plain("a\n$b$", 10) == r"a \$b\$"
    assert plain("abcdef", 4) == "abc…"


def test_figures_of_the_clients_own_models_name_them() -> None:
    records = [{"round": i, "test": {"personal_accuracy": i / 10}} for i in (1, 2)]
    clients = pd.DataFrame({"round": 2, "client": [0, 1], "personal_accuracy": [0.9, 0.5]})
    scores = scores_figure(rounds_table(records), clients, "personal_accuracy", 2)
    spread = spread_figure(clients, "personal_accuracy")
    assert scores is not None
    assert spread is not None
    lines = {str(line.get_label()): line for line in scores.axes[0].lines}
    assert list(lines["test, clients' own models"].get_ydata()) == pytest.approx([10, 20])
    assert "test, global model" not in lines
    assert list(scores.axes[0].lines[-1].get_ydata()) == pytest.approx([20])
    assert spread.axes[0].lines[0].get_label() == "mean, clients' own: 70"
