"""Tests of fedssl.data.views.box_augment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.data.boxes import GREY
from fedssl.data.views.box_augment import (
    Transform,
    _blur,
    _colours,
    _smoothed,
    identity,
    map_boxes,
    place_boxes,
    strong,
)
from fedssl.data.views.draws import draws

SIZE = 64


def transform(*rows: list[list[float]], size: float = 100) -> Transform:
    count = len(rows)
    window = torch.tensor([0, 0, size, size], dtype=torch.float32).repeat(1, count, 1)
    return Transform(torch.tensor(rows, dtype=torch.float32)[None], torch.arange(count)[None], window)


FLIP = [[-1, 0, 100], [0, 1, 0]]


def test_a_flip_twice_gives_the_boxes_back():
    boxes, image = torch.tensor([[10.0, 20, 30, 50], [0, 0, 100, 100], [3, 4, 5, 6]]), torch.tensor([0, 0, 1])
    once, kept = map_boxes(boxes, image, transform(FLIP, FLIP))
    assert once.tolist() == [[70, 20, 90, 50], [0, 0, 100, 100], [95, 4, 97, 6]]
    assert kept.all()
    twice, _ = map_boxes(once, image, transform(FLIP, FLIP))
    assert torch.equal(twice, boxes)


def test_a_turned_box_contains_its_mapped_corners():
    angle = np.deg2rad(30)
    turn = [[np.cos(angle), -np.sin(angle), 50.0], [np.sin(angle), np.cos(angle), 10.0]]
    boxes = torch.tensor([[10.0, 5, 30, 25]])
    found, kept = map_boxes(boxes, torch.tensor([0]), transform(turn))
    corners = np.array([[x, y, 1] for x in (10, 30) for y in (5, 25)]) @ np.array(turn).T
    low, high = corners.min(axis=0), corners.max(axis=0)
    np.testing.assert_allclose(found[0].numpy(), [*low, *high], rtol=1e-5)
    assert kept.tolist() == [True]


def test_a_box_counts_from_a_fifth_of_its_area_and_two_pixels_on():
    moved = transform([[1, 0, -50], [0, 1, 0]])
    # 20 wide: 4.5, 4 and 3 pixels stay in the view; 3 high of 3 and 1 of 1; wholly outside.
    boxes = [[34.5, 0, 54.5, 10], [34, 0, 54, 10], [33, 0, 53, 10], [60, 0, 80, 3], [60, 0, 80, 1], [0, 0, 20, 20]]
    found, kept = map_boxes(torch.tensor(boxes), torch.zeros(6, dtype=torch.long), moved)
    assert kept.tolist() == [True, True, False, True, False, False]
    assert found[:2].tolist() == [[0, 0, 4.5, 10], [0, 0, 4, 10]]


def test_the_identity_keeps_boxes_and_no_boxes_are_fine():
    boxes = torch.tensor([[1.0, 2, 30, 40]])
    found, view, row = place_boxes(boxes, torch.tensor([1]), identity(2, SIZE, torch.device("cpu")))
    assert (found.tolist(), view.tolist(), row.tolist()) == ([[1, 2, 30, 40]], [1], [0])
    empty = map_boxes(boxes[:0], torch.zeros(0, dtype=torch.long), identity(2, SIZE, torch.device("cpu")))
    assert [len(part) for part in empty] == [0, 0]


def blocks(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of flat ground with one bright block each, and the block's boxes."""
    rng = np.random.default_rng(0)
    x = np.full((count, SIZE, SIZE, 3), 20, np.uint8)
    boxes = np.zeros((count, 4), np.float32)
    for i in range(count):
        left, top = rng.integers(8, 40, 2)
        x[i, top : top + 16, left : left + 16] = 250
        boxes[i] = left, top, left + 16, top + 16
    return torch.from_numpy(x), torch.from_numpy(boxes)


@pytest.mark.parametrize("mosaic", [False, True])
def test_boxes_lie_where_the_objects_are_drawn(mosaic, monkeypatch):
    monkeypatch.setattr("fedssl.data.views.box_augment._blur", lambda x, draw: x)
    monkeypatch.setattr("fedssl.data.views.box_augment._cutout", lambda x, draw: x)
    monkeypatch.setattr("fedssl.data.views.box_augment._colours", lambda x, draw: x / 255)
    x, boxes = blocks(16)
    views, how = strong(x, np.arange(16), 7, flip=True, mosaic=mosaic)
    found, view, row = place_boxes(boxes, torch.arange(16), how)
    assert view.tolist() == sorted(view.tolist())
    bright = views[:, 0] > 0.8
    painted = torch.zeros_like(bright)
    for box, place in zip(found.round().long().tolist(), view.tolist(), strict=True):
        x1, y1, x2, y2 = box
        painted[place, y1:y2, x1:x2] = True
        assert bright[place, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
    # Bright pixels outside are of boxes of which too little is left, or the soft edge of one.
    assert (bright & ~painted).float().mean() < 0.01
    if mosaic:
        assert len(row) > 16
        assert 1 < np.bincount(row.numpy()).max() <= 4
    else:
        assert view.tolist() == row.tolist()


def test_a_view_is_the_samples_own(monkeypatch):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8))
    index = np.array([3, 8, 1, 40, 2, 9])
    whole, how = strong(x, index, 5, flip=True)
    part, how_part = strong(x[2:5], index[2:5], 5, flip=True)
    torch.testing.assert_close(part, whole[2:5], rtol=0, atol=1e-6)
    assert torch.equal(how_part.matrix, how.matrix[:, 2:5])
    again, _ = strong(x, index, 5, flip=True)
    assert torch.equal(again, whole)
    other, _ = strong(x, index, 6, flip=True)
    assert not torch.equal(other, whole)
    assert whole.shape == (6, 3, SIZE, SIZE)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= whole.min() <= whole.max() <= 1


def test_scale_stays_in_its_range_and_only_flip_mirrors():
    x = torch.zeros(300, SIZE, SIZE, 3, dtype=torch.uint8)
    _, straight = strong(x, np.arange(300), 0, flip=False)
    _, mirrored = strong(x, np.arange(300), 0, flip=True)
    scale = straight.matrix[0, :, 0, 0]
    assert scale.min() >= 0.5
    assert scale.max() <= 1.5
    assert (scale == straight.matrix[0, :, 1, 1]).all()
    share = (mirrored.matrix[0, :, 0, 0] < 0).float().mean()
    assert 0.4 < share < 0.6
    # Pictures that are smaller lie wholly inside; larger ones cover the view.
    end = straight.matrix[0, :, :, 2] + scale[:, None] * SIZE
    small = scale < 1
    assert ((straight.matrix[0, :, :, 2] >= 0) & (end <= SIZE + 1e-3))[small].all()
    assert ((straight.matrix[0, :, :, 2] <= 0) & (end >= SIZE - 1e-3))[~small].all()


def test_a_mosaic_is_no_map_of_single_pictures():
    _, how = strong(torch.zeros(4, SIZE, SIZE, 3, dtype=torch.uint8), np.arange(4), 0, flip=True, mosaic=True)
    with pytest.raises(ValueError, match="place_boxes"):
        map_boxes(torch.zeros(1, 4), torch.tensor([0]), how)
    area = (how.window[..., 2:] - how.window[..., :2]).prod(-1).sum(0)
    assert area.tolist() == [SIZE**2] * 4
    assert sorted(how.source[:, 0].tolist()) == [0, 1, 2, 3]


def test_colours_leave_grey_pixels_grey_and_a_fifth_of_pictures_without_colour():
    draw = np.random.default_rng(0).integers(0, 2**32, (5, 400), dtype=np.uint64)
    x = torch.full((400, 3, 1, 2), 100.0)
    x[:, 0, 0, 1] = 200
    found = _colours(x.clone(), draw)
    torch.testing.assert_close(found[:, 0, 0, 0], found[:, 1, 0, 0], rtol=0, atol=1e-6)
    grey = (found[:, 0, 0, 1] - found[:, 1, 0, 1]).abs() < 1e-6
    assert 0.15 < grey.float().mean() < 0.25
    middle = np.full((5, 1), 2**31, np.uint64)
    torch.testing.assert_close(_colours(x[:1].clone(), middle), x[:1] / 255, rtol=0, atol=1e-6)


def test_a_picture_is_blurred_as_among_others():
    draw, x = draws(np.arange(8), 5, 2), torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = _blur(x.clone(), draw)
    changed = [not torch.equal(one, other) for one, other in zip(blurred, x, strict=True)]
    assert 0 < sum(changed) < 8
    for i in range(8):
        assert torch.equal(_blur(x[i : i + 1].clone(), draw[:, i : i + 1])[0], blurred[i])
    assert _blur(torch.empty(8, 3, 16, 16, device="meta"), draw).shape == x.shape


def test_a_blur_spreads_along_one_axis():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    kernel = torch.tensor([0.4, 0.2, 0.07, 0.03])[:, None, None, None, None]
    found = _smoothed(x, kernel, 2)
    torch.testing.assert_close(found[0, 0, :, 4], torch.tensor([0, 0.03, 0.07, 0.2, 0.4, 0.2, 0.07, 0.03, 0]))
    assert found.sum() == pytest.approx(1.0)
    assert torch.equal(_smoothed(x, kernel, 3)[0, 0, 4], found[0, 0, :, 4])


def test_some_of_each_view_is_hidden_by_grey():
    x = torch.full((200, SIZE, SIZE, 3), 255, dtype=torch.uint8)
    views, how = strong(x, np.arange(200), 1, flip=True)
    hidden = (views == GREY / 255).all(1)
    full = how.matrix[0, :, 0, 0] >= 1
    share = hidden[full].float().mean((1, 2))
    # Two squares, of sides uniform to a quarter: E = 2 * 0.25**2 / 3 = 0.042, less what lies outside or overlaps.
    assert 0.02 < share.mean() < 0.042
    assert share.max() <= 2 * 0.25**2
