"""Tests of fedssl.diagnostics.open_world and of what a run with an open-world task writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from fedssl.data.arrays import first_of_each
from fedssl.diagnostics.open_world import describe, picture

KINDS = np.array([0, 1, 2], np.int8)


def test_the_confusion_is_counted_after_the_joint_matching():
    # Ids 1 and 2 are swapped: class 1 is called 2 twice and class 2 is called 1 once; one unknown row is left out.
    found = describe(np.array([0, 0, 2, 2, 1, 0]), np.array([0, 0, 1, 1, 2, -1]), ("a", "b", "c"), KINDS)
    assert found["matching"] == [0, 2, 1]
    assert found["confusion"] == [[2, 0, 0], [0, 2, 0], [0, 0, 1]]
    assert (found["classes"], found["kinds"]) == (["a", "b", "c"], [0, 1, 2])


def test_seen_ids_stay_themselves_in_named():
    # All of class 1 is called 0, more than the one row of class 0: the joint matching gives id 0 to class 1.
    found = describe(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 1]), ("a", "b", "c"), KINDS)
    assert found["matching"][0] == 1
    assert found["named"] == [0, 2, 1]
    assert describe(np.array([1, 0]), np.array([0, 1]), ("a", "b"), np.zeros(2, np.int8))["named"] == [0, 1]


def test_points_lie_on_the_two_largest_directions_of_unit_features():
    # Unit rows (1, 0), (-1, 0), (0, 1), (0, 1): mean (0, 0.5), variances 2 along the first axis and 1 along the second.
    features = np.array([[3.0, 0], [-2, 0], [0, 5], [0, 0.1]])
    found = picture(features, np.array([0, 0, 1, 1]), np.array([[0.0, 2.0], [4.0, 0.0]]), [1, 0])
    assert found["points"] == {"x": [1, -1, 0, 0], "y": [-0.5, -0.5, 0.5, 0.5], "class": [0, 0, 1, 1]}
    assert found["variance"] == [0.6667, 0.3333]
    assert found["centroids"] == {"x": [0, 1], "y": [0.5, -0.5], "class": [1, 0]}


@pytest.mark.parametrize("features", [np.ones((3, 1)), np.zeros((1, 4))])
def test_features_without_a_plane_lie_at_the_origin(features):
    found = picture(features, np.zeros(len(features), int), None, [])
    assert found["points"]["x"] == found["points"]["y"] == [0] * len(features)
    assert found["centroids"] is None


def test_the_picture_is_of_the_models_features_and_the_servers_centroids():
    run = toys.begun(toys.experiment(partition={"name": "open_world"}, calibration={"name": "centroid"}))
    server = run.strategy.server
    server.extra["centroids"] = torch.eye(10, 8)
    found = run.scorer.open_world(server)
    shown = first_of_each(run.dataset.test.y, 100)
    assert found["points"]["class"] == run.dataset.test.y[shown].tolist()
    assert found["kinds"] == [0] * 6 + [1, 2, 2, 2]
    assert np.sum(found["confusion"]) == len(run.dataset.test)
    run.model.load_state_dict(server.model)
    run.model.eval()
    from fedssl.data.views.augment import normalise

    x = normalise(torch.from_numpy(run.dataset.test.x[shown]), run.dataset.mean, run.dataset.std)
    features = run.model(x).features.detach().double().numpy()
    expected = picture(features, run.dataset.test.y[shown], np.eye(10, 8), found["named"])
    for axis in ("x", "y"):
        assert found["points"][axis] == pytest.approx(expected["points"][axis], abs=2e-3)
        assert found["centroids"][axis] == pytest.approx(expected["centroids"][axis], abs=2e-3)
    server.extra["centroids"] = torch.eye(10, 7)
    assert run.scorer.open_world(server)["centroids"] is None


@pytest.mark.parametrize(("partition", "written"), [("open_world", True), ("iid", False)])
def test_open_world_runs_alone_write_the_file(partition: str, written: bool, tmp_path: Path):
    run = toys.run(toys.experiment(partition={"name": partition}, rounds=1), tmp_path)
    assert (tmp_path / "open_world.json").is_file() is written
    if written:
        found = json.loads((tmp_path / "open_world.json").read_text())
        right = np.trace(found["confusion"]) / np.sum(found["confusion"])
        assert right == pytest.approx(run.journal.last()["test"]["accuracy_all"])
        assert len((tmp_path / "open_world.json").read_bytes()) < 60_000
