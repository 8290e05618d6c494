"""Tests of fedssl.metrics.detection."""

from __future__ import annotations

import numpy as np
import pytest

from fedssl.metrics.detection import MAX_BOXES, FlatBoxes, average_precision, mean_over

PLACES = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], np.float32)
ELSEWHERE = np.array([[70, 70, 80, 80]], np.float32)


def boxes(xyxy, score, label=None, offsets=None) -> FlatBoxes:
    xyxy = np.asarray(xyxy, np.float32).reshape(-1, 4)
    label = np.zeros(len(xyxy), np.int64) if label is None else np.asarray(label, np.int64)
    offsets = np.array([0, len(xyxy)] if offsets is None else offsets, np.int64)
    return FlatBoxes(xyxy, label, offsets, np.asarray(score, np.float32))


def true(xyxy, label=None, offsets=None) -> FlatBoxes:
    return boxes(xyxy, np.ones(len(xyxy)), label, offsets)


@pytest.mark.parametrize(
    ("objects", "hits", "coco"),
    [
        (3, [True, False, True], (34 + 33 * 2 / 3) / 101),
        (1, [False, True], 0.5),
        (2, [True], 51 / 101),
        (1, [True, False], 1.0),
        (2, [False, False], 0.0),
    ],
)
def test_average_precision_of_a_ranking(objects, hits, coco):
    free = iter(PLACES)
    found = [next(free) if hit else ELSEWHERE[0] for hit in hits]
    score = np.linspace(0.9, 0.1, len(hits))
    at50, at75 = average_precision(boxes(found, score), true(PLACES[:objects]), 1)
    assert at50[0] == pytest.approx(coco, abs=1e-6)
    assert at75[0] == at50[0]


def test_the_paper_s_own_example_to_six_places():
    found = boxes([PLACES[0], ELSEWHERE[0], PLACES[1]], [0.9, 0.8, 0.7])
    assert average_precision(found, true(PLACES), 1)[0, 0] == pytest.approx(0.554455, abs=1e-6)


def test_a_second_box_on_a_matched_object_is_wrong():
    found = boxes([PLACES[0], PLACES[0], PLACES[1]], [0.9, 0.8, 0.7])
    assert average_precision(found, true(PLACES[:2]), 1)[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_an_overlap_counts_at_one_threshold_and_not_at_the_other():
    narrow = boxes([[0, 0, 10, 6]], [0.9])  # IoU 0.6
    np.testing.assert_array_equal(average_precision(narrow, true(PLACES[:1]), 1)[:, 0], [1.0, 0.0])


def test_the_iou_of_the_threshold_itself_is_enough():
    half = boxes([[0, 0, 10, 5]], [0.9])
    assert average_precision(half, true(PLACES[:1]), 1)[0, 0] == 1.0


def test_a_class_without_objects_is_unknown_and_one_never_found_is_zero():
    found = boxes([PLACES[0], PLACES[1]], [0.9, 0.8], [0, 3])
    at50 = average_precision(found, true(PLACES, [0, 0, 2]), 5)[0]
    np.testing.assert_array_equal(at50, [51 / 101, np.nan, 0.0, np.nan, np.nan])
    assert mean_over(at50) == pytest.approx(51 / 202)
    assert np.isnan(mean_over(at50[[1, 3]]))


def test_pictures_without_any_objects_have_no_precision():
    nothing = FlatBoxes.join([])
    assert np.isnan(average_precision(nothing, nothing, 2)).all()
    empty = true(PLACES[:0], offsets=[0, 0])
    assert np.isnan(average_precision(boxes([PLACES[0]], [0.9]), empty, 2)).all()


def test_nothing_found_is_zero():
    assert average_precision(boxes([], [], offsets=[0, 0]), true(PLACES), 1).tolist() == [[0.0], [0.0]]


def test_a_box_in_another_picture_is_no_match():
    found = boxes([PLACES[0]], [0.9], offsets=[0, 0, 1])
    objects = true(PLACES[:2], [0, 0], [0, 1, 2])
    assert average_precision(found, objects, 1)[0, 0] == 0.0
    assert average_precision(found.take(np.array([1, 0])), objects, 1)[0, 0] == pytest.approx(51 / 101)


def test_no_more_than_the_best_boxes_of_a_picture_count():
    wrong = np.repeat(ELSEWHERE, MAX_BOXES, axis=0)
    found = boxes(np.concatenate([wrong, PLACES[:1]]), np.linspace(0.9, 0.1, MAX_BOXES + 1))
    assert average_precision(found, true(PLACES[:1]), 1)[0, 0] == 0.0
    assert average_precision(boxes(found.xyxy[1:], found.score[1:]), true(PLACES[:1]), 1)[0, 0] == pytest.approx(
        1 / MAX_BOXES
    )


def test_random_boxes_agree_with_matching_by_hand():
    rng = np.random.default_rng(0)
    pictures, count = 12, 8
    offsets = np.arange(pictures + 1) * count
    corner = rng.uniform(0, 60, (pictures * count, 2))
    objects = true(np.concatenate([corner, corner + 20], axis=1), rng.integers(0, 2, pictures * count), offsets)
    moved = objects.xyxy + rng.normal(0, 2, (pictures * count, 1))
    found = boxes(moved, rng.permutation(pictures * count) / 100, rng.integers(0, 2, pictures * count), offsets)
    expected = [by_hand(found, objects, label) for label in (0, 1)]
    np.testing.assert_allclose(average_precision(found, objects, 2)[0], expected, atol=1e-6)


def by_hand(found: FlatBoxes, objects: FlatBoxes, label: int) -> float:
    picture = np.repeat(np.arange(len(found)), np.diff(found.offsets))
    wanted = objects.label == label
    free, hits = wanted.copy(), []
    for row in np.argsort(-found.score, kind="stable"):
        if found.label[row] != label:
            continue
        here = np.flatnonzero(free & (picture == picture[row]))
        overlaps = [overlap(found.xyxy[row], objects.xyxy[other]) for other in here]
        hits.append(bool(overlaps) and max(overlaps) >= 0.5)
        if hits[-1]:
            free[here[int(np.argmax(overlaps))]] = False
    right = np.cumsum(hits)
    recall, precision = right / wanted.sum(), right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.concatenate([best, [0.0]])[places].mean())


def overlap(one, other) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared)


def test_pictures_are_taken_joined_and_filtered_with_their_boxes():
    one = boxes(np.concatenate([PLACES, ELSEWHERE]), [0.1, 0.2, 0.3, 0.4], [0, 1, 2, 3], [0, 1, 1, 4])
    taken = one.take(np.array([2, 1, 0, 2]))
    assert taken.offsets.tolist() == [0, 3, 3, 4, 7]
    assert taken.label.tolist() == [1, 2, 3, 0, 1, 2, 3]
    np.testing.assert_array_equal(taken.xyxy[3], PLACES[0])
    joined = FlatBoxes.join([one, one.take(np.array([1, 0]))])
    assert joined.offsets.tolist() == [0, 1, 1, 4, 4, 5]
    assert joined.label.tolist() == [0, 1, 2, 3, 0]
    kept = one.above(0.3)
    assert kept.offsets.tolist() == [0, 0, 0, 2]
    assert kept.label.tolist() == [2, 3]
