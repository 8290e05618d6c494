"""Tests of fedssl.data.views.client_data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.sources.shapes_synthetic import ShapesSynthetic
from fedssl.data.views import client_data
from fedssl.data.views.box_augment import map_boxes, place_boxes
from fedssl.data.views.client_data import ClientData


@pytest.fixture
def data() -> ClientData:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    samples = Samples(x, np.zeros(40, np.int64), np.full(40, -1))
    dataset = Dataset("random", samples, samples, ("a", "b"), (0.5,) * 3, (0.2,) * 3, "key")
    everything = Indices(np.arange(40), np.zeros(0, np.int64))
    return ClientData(0, dataset, everything, samples.y, True, torch.device("cpu"))


@pytest.mark.parametrize("together", [1, 20, 512])
@pytest.mark.parametrize("key", [7, (1 << 64) - 2])
def test_views_made_together_have_the_bits_of_views_made_apart(data, key, together, monkeypatch):
    monkeypatch.setattr(client_data, "_TOGETHER", together)
    parts = [np.array([3, 1, 4, 1, 5]), np.array([9, 2]), np.array([6, 5, 3, 5]), np.arange(40)]
    found = list(data.weak_batches(parts, key))
    assert len(found) == len(parts)
    for i, (part, x) in enumerate(zip(parts, found, strict=True)):
        assert torch.equal(x, data.weak(part, key + i))
        assert x.stride() == data.weak(part, key + i).stride()


@pytest.mark.parametrize("together", [1, 20, 512])
def test_samples_and_labels_fetched_together_have_the_bits_of_those_fetched_apart(data, together, monkeypatch):
    monkeypatch.setattr(client_data, "_TOGETHER", together)
    data = replace(data, given=np.arange(40))
    parts = [np.array([3, 1, 4, 1, 5]), np.array([9, 2]), np.arange(40)]
    for part, x, y in zip(parts, data.plain_batches(parts), data.label_batches(parts), strict=True):
        assert torch.equal(x, data.plain(part))
        assert x.stride() == data.plain(part).stride()
        assert y.tolist() == part.tolist()


def test_a_label_that_nobody_told_is_refused_in_a_batch(data):
    data = replace(data, given=np.full(40, -1))
    with pytest.raises(ValueError, match="has none"):
        list(data.label_batches([np.array([0])]))


def test_no_parts_give_no_views(data):
    assert list(data.weak_batches([], 0)) == []
    assert list(data.plain_batches([])) == []


def test_all_classes_are_seen_unless_the_split_says_otherwise(data):
    assert data.kinds.tolist() == [0, 0]
    kinds = np.array([0, 2], np.int8)
    told = replace(data, kinds=kinds)
    assert told.kinds is kinds
    assert replace(told, client_id=3).kinds is kinds


def scenes() -> ClientData:
    """12 synthetic scenes; the client knows the boxes of 0..5."""
    dataset = ShapesSynthetic(size=64, pictures=12, test_pictures=1, server_share=0.5).read()
    indices = Indices(np.arange(6), np.arange(6, 12))
    return ClientData(0, dataset, indices, np.full(12, -1), True, torch.device("cpu"))


def test_scenes_come_as_they_are_stored_with_the_boxes_that_are_known():
    data = scenes()
    index = np.array([7, 2, 5])
    batch = data.detection_batch(index, 3, strong=False)
    expected = data.dataset.train.x[index].transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_allclose(batch.x.numpy(), expected, atol=1e-6)
    assert batch.x.dtype == torch.float32
    assert set(batch.image_index.tolist()) == {1, 2}
    two, classes = data.dataset.train.boxes_of(2)
    assert batch.boxes[batch.image_index == 1].tolist() == two.tolist()
    assert batch.classes[batch.image_index == 1].tolist() == classes.tolist()
    moved, kept = map_boxes(batch.boxes, batch.image_index, batch.transform)
    assert torch.equal(moved, batch.boxes)
    assert kept.all()


def test_the_truth_of_unlabelled_scenes_is_for_telemetry_alone():
    data = scenes()
    hidden = np.array([8, 9])
    batch = data.detection_batch(hidden, 0, strong=True)
    assert [len(batch.boxes), len(batch.classes), len(batch.image_index)] == [0, 0, 0]
    boxes, classes, place = data.true_boxes(hidden)
    assert len(boxes) == len(classes) == len(place) == np.diff(data.dataset.train.box_offsets)[8:10].sum() > 0


@pytest.mark.parametrize("mosaic", [False, True])
def test_strong_scenes_carry_their_boxes_along(mosaic):
    data = scenes()
    index = np.arange(6)
    batch = data.detection_batch(index, 11, strong=True, mosaic=mosaic)
    boxes, classes, place = data.true_boxes(index)
    placed, view, row = place_boxes(boxes, place, batch.transform)
    assert torch.equal(batch.boxes, placed)
    assert torch.equal(batch.image_index, view)
    assert torch.equal(batch.classes, classes[row])
    again = data.detection_batch(index, 11, strong=True, mosaic=mosaic)
    assert torch.equal(again.x, batch.x)
    assert not torch.equal(data.detection_batch(index, 12, strong=True, mosaic=mosaic).x, batch.x)


@pytest.mark.parametrize("mosaic", [False, True])
def test_strong_scenes_are_the_same_under_autocast(mosaic):
    data, index = scenes(), np.arange(6)
    expected = data.detection_batch(index, 11, strong=True, mosaic=mosaic)
    with torch.autocast("cpu", torch.bfloat16):
        batch = data.detection_batch(index, 11, strong=True, mosaic=mosaic)
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, expected.x)
    assert torch.equal(batch.boxes, expected.boxes)


def test_scenes_that_nobody_annotated_have_no_truth():
    data = scenes()
    index, known = np.array([8, 9, 10]), np.arange(12) != 9
    assert data.annotated(index).tolist() == [True, True, True]
    train = replace(data.dataset.train, annotated=known)
    data = replace(data, dataset=replace(data.dataset, train=train))
    assert data.annotated(index).tolist() == [True, False, True]
    counts = np.diff(train.box_offsets)[[8, 10]].tolist()
    assert np.bincount(data.true_boxes(index)[2], minlength=3).tolist() == [counts[0], 0, counts[1]]


def test_a_batch_of_one_scene_is_possible():
    batch = scenes().detection_batch(np.array([4]), 0, strong=True, mosaic=True)
    assert batch.x.shape == (1, 3, 64, 64)
    assert batch.transform.source.tolist() == [[0]] * 4


def test_a_method_file_may_import_it_from_its_old_place_for_one_version():
    with pytest.deprecated_call(match=r"fedssl\.data\.views\.client_data"):
        from fedssl.data.views import ClientData as Old
    assert Old is ClientData
    with pytest.raises(ImportError):
        from fedssl.data.views import Nothing  # noqa: F401
