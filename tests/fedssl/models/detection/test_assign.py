from __future__ import annotations

import pytest
import torch

from fedssl.models.detection import assign as module

ANCHORS = torch.tensor([[10.0, 13.0]])
GRID = (8, 8)


@pytest.fixture
def match(checked):
    return checked(module, "match")


def box(x, y, width, height):
    return torch.tensor([[x - width / 2, y - height / 2, x + width / 2, y + height / 2]])


def cells(found):
    return sorted(map(tuple, found.cell.tolist()))


@pytest.mark.parametrize(("size", "fits"), [((20, 40), True), ((39, 40), True), ((50, 40), False), ((40, 13), False)])
def test_an_anchor_fits_below_four_times_either_side(match, size, fits):
    found = match(box(100, 100, *size), torch.tensor([0]), ANCHORS, 32, GRID)
    assert len(found.target) == (3 if fits else 0)


def test_small_boxes_are_bounded_by_the_inverse_ratio(match):
    one = torch.tensor([0])
    assert len(match(box(100, 100, 2.6, 13), one, ANCHORS, 32, GRID).target) == 3
    assert len(match(box(100, 100, 2.5, 13), one, ANCHORS, 32, GRID).target) == 0


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((20, 20), [(2.0, 2.0)]),
        ((18, 21), [(1.0, 2.0), (2.0, 2.0), (2.0, 3.0)]),
        ((22, 18), [(2.0, 1.0), (2.0, 2.0), (3.0, 2.0)]),
        ((1, 1), [(0.0, 0.0)]),
        ((63, 2), [(7.0, 0.0)]),
        ((63, 62), [(7.0, 7.0)]),
        ((64, 6), [(7.0, 0.0), (7.0, 1.0)]),
    ],
)
def test_the_centres_cell_and_its_nearest_neighbours_inside(match, centre, expected):
    found = match(box(*centre, 10, 13), torch.tensor([0]), ANCHORS, 8, GRID)
    assert cells(found) == expected


def test_places_count_images_anchors_rows_columns(match):
    anchors = torch.tensor([[1.0, 1.0], [10.0, 10.0]])
    boxes = torch.cat([box(20, 12, 10, 10), box(4, 4, 1, 1)])
    found = match(boxes, torch.tensor([2, 0]), anchors, 8, (4, 6))
    assert found.target.tolist() == [0, 1]
    assert found.anchor.tolist() == [1, 0]
    # ((2 * 2 + 1) * 4 + 1) * 6 + 2: image 2, anchor 1, row 1, column 2.
    assert found.place.tolist() == [128, 0]


def test_nothing_matches_nothing(match):
    found = match(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), ANCHORS, 8, GRID)
    assert [len(part) for part in found] == [0, 0, 0, 0]
