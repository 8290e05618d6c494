from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.models.detection.anchors import anchors_from, coco_anchors, decode_boxes


def boxes_of(*sizes):
    """Boxes at (5, 7) with the given widths and heights."""
    return np.array([(5, 7, 5 + width, 7 + height) for width, height in sizes], np.float32)


def test_cocos_anchors_scale_with_the_picture():
    assert coco_anchors(640)[0].tolist() == [[10, 13], [16, 30], [33, 23]]
    torch.testing.assert_close(coco_anchors(320)[2, 2], torch.tensor([186.5, 163.0]))


def test_outputs_of_zero_and_one_decode_to_the_known_offset_and_factor():
    raw = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    low, high = decode_boxes(raw, torch.tensor([[3.0, 2], [0, 0]]), torch.tensor([10.0, 20.0]), 8)
    # Centre (3.5, 2.5) cells of 8 pixels, side = anchor.
    assert low.tolist() == [23, 10, 33, 30]
    centre, side = 8 * 0.962117, 2.137787
    expected = torch.tensor(
        [centre - 5 * side, centre - 10 * side, centre + 5 * side, centre + 10 * side], dtype=torch.float32
    )
    torch.testing.assert_close(high, expected, rtol=0, atol=2e-5)


def test_a_vanishing_side_keeps_finite_gradients():
    from torchvision.ops import complete_box_iou_loss

    raw = torch.tensor([[0.0, 0, -60, -60], [0, 0, 0, -60]], requires_grad=True)
    boxes = decode_boxes(raw, torch.tensor([20.0, 20.0]), torch.tensor([10.0, 10.0]), 32)
    complete_box_iou_loss(boxes, torch.tensor([[600.0, 600, 640, 640]] * 2)).sum().backward()
    assert torch.isfinite(raw.grad).all()
    assert raw.grad[0, 0] != 0


def test_nine_clusters_are_found_and_sorted_by_area():
    centres = [(10 * k, 15 * k) for k in range(9, 0, -1)]
    spread = [(w + d, h - d) for w, h in centres for d in (-1, 0, 1)]
    found = anchors_from(boxes_of(*spread), seed=3)
    assert found.shape == (3, 3, 2)
    assert found.dtype == torch.float32
    assert found.view(9, 2).tolist() == [list(size) for size in reversed(centres)]


def test_equal_areas_are_sorted_by_width():
    sizes = [(1, 1), (2, 8), (4, 4), (8, 2), (10, 10), (20, 20), (30, 30), (40, 40), (50, 50)]
    assert anchors_from(boxes_of(*sizes[::-1]), seed=0).view(9, 2).tolist() == [list(size) for size in sizes]


def test_the_seed_alone_decides():
    boxes = boxes_of(*np.random.default_rng(0).uniform(5, 200, (40, 2)).round())
    assert torch.equal(anchors_from(boxes, seed=2**40 + 1), anchors_from(boxes.copy(), seed=2**40 + 1))


def test_few_sizes_are_repeated_and_none_are_refused():
    found = anchors_from(boxes_of((4, 4), (9, 9), (9, 9)), seed=0)
    assert found.view(9, 2)[:, 0].tolist() == [4] * 5 + [9] * 4
    with pytest.raises(ValueError, match="at least one box"):
        anchors_from(np.zeros((0, 4), np.float32), seed=0)
