"""Tests of fedssl.data.boxes and of the boxes that samples hold."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data import boxes as module
from fedssl.data.base import Samples
from fedssl.data.boxes import GREY, NO_BOXES, Boxes, Letterbox, pack, rarest_class, room_for


def boxes(*rows: tuple[float, float, float, float, int]) -> Boxes:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Boxes(table[:, :4], table[:, 4].astype(np.int64))


def test_a_portrait_is_centred_between_grey_bars():
    frame = Letterbox(400, 300, 200)
    assert (frame.scale, frame.inner, frame.corner) == (0.5, (200, 150), (0, 25))
    picture = np.full((400, 300, 3), 9, np.uint8)
    framed = frame.framed(frame.resized(picture))
    assert framed.shape == (200, 200, 3)
    assert (framed[:, 25:175] == 9).all()
    assert (framed[:, :25] == GREY).all()
    assert (framed[:, 175:] == GREY).all()
    assert frame.boxes(np.float32([[0, 0, 300, 400], [100, 40, 140, 60]])).tolist() == [
        [25, 0, 175, 200],
        [75, 20, 95, 30],
    ]


def test_a_small_landscape_grows_and_its_own_size_stays():
    assert Letterbox(10, 20, 40).boxes(np.float32([[0, 0, 20, 10]])).tolist() == [[0, 10, 40, 30]]
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    frame = Letterbox(4, 4, 4)
    assert (frame.framed(frame.resized(picture)) == picture).all()


def test_the_class_in_the_fewest_pictures_stands_for_a_picture():
    found = [boxes((0, 0, 1, 1, 0), (0, 0, 1, 1, 2)), boxes((0, 0, 1, 1, 0)), NO_BOXES, boxes((0, 0, 1, 1, 1))]
    assert rarest_class(found, 3).tolist() == [2, 0, -1, 1]
    assert rarest_class([boxes((0, 0, 1, 1, 1), (0, 0, 1, 1, 0))], 2).tolist() == [0]
    assert rarest_class([NO_BOXES], 2).tolist() == [-1]


def test_boxes_of_pictures_one_by_one_and_many_at_once():
    given = [boxes((0, 0, 1, 1, 1), (2, 2, 3, 3, 0)), NO_BOXES, boxes((4, 4, 5, 5, 2))]
    three = np.arange(3)
    samples = pack(np.zeros((3, 8, 8, 3), np.uint8), given, np.int64([0, -1, 2]), three, three)
    assert samples.holds_boxes
    assert samples.box_offsets.tolist() == [0, 2, 2, 3]
    for i, one in enumerate(given):
        xyxy, classes = samples.boxes_of(i)
        assert xyxy.tolist() == one.xyxy.tolist()
        assert classes.tolist() == one.classes.tolist()
    xyxy, classes, place = samples.boxes_at(np.array([2, 1, 0, 2]))
    assert xyxy[:, 0].tolist() == [4, 0, 2, 4]
    assert classes.tolist() == [2, 1, 0, 2]
    assert place.tolist() == [0, 2, 2, 3]
    assert [len(part) for part in samples.boxes_at(np.array([1]))] == [0, 0, 0]


def test_samples_without_any_box_still_hold_boxes():
    samples = pack(np.zeros((2, 8, 8, 3), np.uint8), [NO_BOXES] * 2, *[np.full(2, -1)] * 3)
    assert samples.holds_boxes
    assert samples.boxes.shape == (0, 4)
    assert (samples.boxes.dtype, samples.box_class.dtype) == (np.float32, np.int64)


def test_background_is_an_annotated_picture_without_boxes():
    x, y, others = np.zeros((3, 8, 8, 3), np.uint8), np.int64([-1, 0, -1]), [np.full(3, -1)] * 2
    given = [NO_BOXES, boxes((0, 0, 1, 1, 0)), NO_BOXES]
    assert pack(x, given, y, *others).background.tolist() == [True, False, True]
    samples = pack(x, given, y, *others, annotated=np.array([True, True, False]))
    assert samples.background.tolist() == [True, False, False]
    assert Samples(x, y, others[0]).background.tolist() == [False] * 3


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_large_data_lie_in_a_temporary_file(limit, monkeypatch):
    monkeypatch.setattr(module, "_IN_MEMORY", limit)
    x = room_for(3, 8)
    assert isinstance(x, np.memmap) == (limit == 0)
    x[:] = 7
    assert (x.shape, x.dtype, int(x.sum())) == ((3, 8, 8, 3), np.uint8, 7 * 576)


def test_a_disk_without_room_is_named(monkeypatch, tmp_path):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path))
    message = r"^FEDSSL_CACHE='.*': must be a folder with room for 0 GB of pictures, twice \(No space left on device\)$"
    with pytest.raises(ConfigError, match=message):
        room_for(3, 8)
    assert not list(tmp_path.iterdir())
