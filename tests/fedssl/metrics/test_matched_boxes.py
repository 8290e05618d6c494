"""Tests of fedssl.metrics.matched_boxes by hand."""

from __future__ import annotations

import pytest
import torch

from fedssl.metrics.matched_boxes import num_matched, telemetry

SQUARE = (0.0, 0.0, 10.0, 10.0)


def boxes(*rows: tuple[tuple[float, float, float, float], int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give boxes, classes and pictures of (box, class, picture)."""
    table = torch.tensor([[*box, kind, image] for box, kind, image in rows]).view(-1, 6)
    return table[:, :4], table[:, 4].long(), table[:, 5].long()


def test_class_picture_and_overlap_must_fit():
    true = boxes((SQUARE, 1, 0))
    for found, right in (
        ((SQUARE, 1, 0), 1),
        ((SQUARE, 2, 0), 0),
        ((SQUARE, 1, 1), 0),
        (((0.0, 0.0, 10.0, 5.0), 1, 0), 1),  # IoU exactly 0.5
        (((0.0, 0.0, 10.0, 4.9), 1, 0), 0),
    ):
        assert num_matched(boxes(found), torch.ones(1), true) == right


def test_a_true_box_is_met_once_and_the_best_score_chooses_first():
    true = boxes((SQUARE, 0, 0), ((4.0, 0.0, 14.0, 10.0), 0, 0))
    twice = boxes((SQUARE, 0, 0), (SQUARE, 0, 0))
    assert num_matched(twice, torch.tensor([0.9, 0.8]), true) == 1
    # (2, 0, 12, 10) has IoU 2/3 with both: the first of them; (0, 0, 10, 10) has 3/7 with what is left.
    both = boxes((SQUARE, 0, 0), ((2.0, 0.0, 12.0, 10.0), 0, 0))
    assert num_matched(both, torch.tensor([0.9, 0.8]), true) == 2
    assert num_matched(both, torch.tensor([0.8, 0.9]), true) == 1


def test_counts():
    found = boxes((SQUARE, 0, 0), (SQUARE, 1, 1), (SQUARE, 2, 1), (SQUARE, 2, 2))
    score = torch.tensor([0.9, 0.8, 0.7, 0.3])
    true = boxes((SQUARE, 0, 0), (SQUARE, 2, 1), (SQUARE, 2, 2))
    counts = telemetry(found, score, score > 0.6, true, 4)
    assert counts == {
        "pseudo_per_image": (4.0, 4.0),
        "pseudo_reliable_per_image": (3.0, 4.0),
        "pseudo_mask_rate": (3.0, 4.0),
        "pseudo_precision": (2.0, 3.0),
        "pseudo_coverage": (2.0, 3.0),
    }


@pytest.mark.parametrize(("found", "true"), [(boxes(), boxes((SQUARE, 0, 0))), (boxes((SQUARE, 0, 0)), boxes())])
def test_nothing_matches_nothing(found: tuple[torch.Tensor, ...], true: tuple[torch.Tensor, ...]):
    assert num_matched(found, torch.ones(len(found[0])), true) == 0  # type: ignore[arg-type]
