"""Tests of the figures of clients' own models: what is drawn, and that nothing is drawn of nothing."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from fedssl.report import users

METRIC = "personal_macro_f1"
CLIENTS = pd.DataFrame(
    {
        "round": [4, 4, 4],
        "client": [0, 1, 2],
        METRIC: [0.7, 0.5, 0.9],
        "personal_weight_0": [0.25, 1.0, 0.0],
        "personal_weight_1": [0.75, 0.0, 1.0],
    }
)
EMBEDDINGS = [{"client": c, "subject": f"16{c:02}", "x": float(c), "y": -float(c)} for c in range(3)]


def window(client: int, offset: float) -> dict[str, Any]:
    true = [[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    made = [[value + offset for value in channel] for channel in true]
    return {"client": client, "class": "walking", "window": true, "reconstruction": made}


def table(**curves: list[float]) -> pd.DataFrame:
    rows = [(i, "train", name, value) for name, values in curves.items() for i, value in enumerate(values, 1)]
    return pd.DataFrame(rows, columns=["round", "split", "metric", "value"])


def test_bars_stack_the_weights_of_clients_from_the_worst_to_the_best():
    figure = users.mixture_figure(CLIENTS, METRIC)
    assert figure is not None
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "0", "2"]
    first, second = ax.containers
    assert [bar.get_height() for bar in first] == [100, 25, 0]
    assert [(bar.get_y(), bar.get_height()) for bar in second] == [(100, 0), (25, 75), (0, 100)]


def test_embeddings_are_named_by_person_and_shaded_by_score():
    figure = users.embeddings_figure({"embeddings": EMBEDDINGS}, CLIENTS, METRIC)
    assert figure is not None
    points = figure.axes[0].collections[0]
    assert points.get_offsets().tolist() == [[0, 0], [1, -1], [2, -2]]
    assert list(points.get_array()) == pytest.approx([70, 50, 90])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1600", "1601", "1602"]


def test_person_0_is_named_and_no_person_is_the_client():
    rows = [{"client": 5, "subject": subject, "x": 0.0, "y": 0.0} for subject in (0, "")]
    figure = users.embeddings_figure({"embeddings": rows}, CLIENTS, METRIC)
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "5"]


def test_an_embedding_without_a_score_is_drawn_all_the_same():
    figure = users.embeddings_figure({"embeddings": EMBEDDINGS}, CLIENTS[:1], METRIC)
    assert figure is not None
    shades = figure.axes[0].collections[0].get_array()
    assert [bool(math.isnan(float(shade))) for shade in shades.filled(math.nan)] == [False, True, True]


def test_windows_are_shown_from_the_worst_client_to_the_best_with_their_error():
    pictures = [window(0, 0.1), window(2, 0.0), window(1, 0.5), window(1, 0.2)]
    figure = users.reconstructions_figure({"reconstructions": pictures}, CLIENTS, METRIC)
    assert figure is not None
    told = [ax.texts[0].get_text().split("\n") for ax in figure.axes]
    assert [lines[0] for lines in told] == ["client 1", "client 0", "client 2"]
    assert [lines[2] for lines in told] == ["error 0.250", "error 0.010", "error 0.000"]
    assert len(figure.axes[0].lines) == 4


def test_of_many_clients_some_are_shown_the_worst_and_the_best_among_them():
    many = pd.DataFrame({"round": 1, "client": range(20), METRIC: [c / 20 for c in range(20)]})
    pictures = [window(client, 0.1) for client in range(20)]
    figure = users.reconstructions_figure({"reconstructions": pictures}, many, METRIC)
    assert figure is not None
    shown = [ax.texts[0].get_text().split("\n")[0] for ax in figure.axes]
    assert (len(shown), shown[0], shown[-1]) == (users.MAX_PICTURES, "client 0", "client 19")


def test_visits_have_a_panel_for_what_was_told():
    both = users.visits_figure(table(kept_0=[0.5, 1.0], error_before=[0.2, 0.1], error_after=[0.1, 0.05]))
    assert both is not None
    kept, errors = both.axes
    assert kept.lines[0].get_ydata().tolist() == [50, 100]
    assert [line.get_ydata().tolist() for line in errors.lines] == [[0.2, 0.1], [0.1, 0.05]]
    alone = users.visits_figure(table(error_after=[0.1]))
    assert alone is not None
    assert len(alone.axes) == 1


def test_nothing_is_drawn_of_nothing_or_of_what_does_not_fit():
    broken = {"embeddings": [{"client": 1}], "reconstructions": [{**window(0, 0.1), "window": [1.0]}]}
    for values in ({}, broken):
        assert users.embeddings_figure(values, CLIENTS, METRIC) is None
        assert users.reconstructions_figure(values, CLIENTS, METRIC) is None
    assert users.mixture_figure(CLIENTS[["round", "client", METRIC]], METRIC) is None
    assert users.visits_figure(table(loss=[1.0])) is None
