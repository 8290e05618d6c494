from __future__ import annotations

import pytest
import torch

from fedssl.models.detection import select as module


@pytest.fixture
def select(checked):
    return checked(module, "select_boxes")


def outputs(boxes, scores, classes, num_classes=2):
    """One image whose objectness is the score and whose class is certain."""
    probability = torch.nn.functional.one_hot(torch.tensor(classes), num_classes).float()
    return torch.tensor(boxes, dtype=torch.float32)[None], torch.tensor(scores)[None], probability[None]


A, B, C = (0, 0, 10, 10), (1, 1, 11, 11), (5, 0, 15, 10)


def test_a_better_box_of_the_class_covers_another(select):
    # IoU 81 / 119 = 0.680672 and 50 / 150.
    assert select(*outputs([A, B], [0.8, 0.9], [0, 0])).boxes.tolist() == [list(B)]
    assert select(*outputs([A, C], [0.8, 0.9], [0, 0])).boxes.tolist() == [list(C), list(A)]


def test_classes_never_cover_each_other_wherever_they_are(select):
    boxes = [(-40, -40, 60, 60), (-40, -40, 60, 60), (21, 21, 121, 121)]
    assert len(select(*outputs(boxes[:2], [0.9, 0.8], [0, 1])).boxes) == 2
    # Moved by 61 = 1 + the greatest coordinate of the first two, class 1 would lie on the third box.
    assert len(select(*outputs([boxes[1], boxes[2]], [0.9, 0.8], [1, 0])).boxes) == 2


def test_an_overlap_at_the_limit_stays(select):
    # 65 of 100 is 0.65; a thousandth more is covered.
    assert len(select(*outputs([(0, 0, 10, 10), (0, 0, 6.5, 10)], [0.9, 0.8], [0, 0])).boxes) == 2
    assert len(select(*outputs([(0, 0, 10, 10), (0, 0, 6.51, 10)], [0.9, 0.8], [0, 0])).boxes) == 1


def test_the_score_is_objectness_times_the_best_class(select):
    boxes = torch.tensor([[A, C]], dtype=torch.float32)
    objectness = torch.tensor([[0.5, 0.2]])
    probability = torch.tensor([[[0.2, 0.6, 0.1], [0.4, 0.1, 0.4]]])
    found = select(boxes, objectness, probability)
    assert found.boxes.tolist() == [list(A)]
    assert found.classes.tolist() == [1]
    torch.testing.assert_close(found.score, torch.tensor([0.3]))
    torch.testing.assert_close(found.objectness, torch.tensor([0.5]))
    assert len(select(boxes, objectness, probability, min_score=0.01).boxes) == 2
    assert len(select(*outputs([A], [0.1], [0])).boxes) == 1


def test_the_best_boxes_of_each_image_in_order(select):
    boxes = torch.tensor([(20.0 * k, 0, 20.0 * k + 10, 10) for k in range(5)]).expand(2, 5, 4)
    scores = torch.tensor([[0.3, 0.5, 0.5, 0.2, 0.4], [0.0, 0.9, 0.0, 0.0, 0.6]])
    found = select(boxes, scores, torch.ones(2, 5, 1), most=3)
    assert found.image.tolist() == [0, 0, 0, 1, 1]
    assert (found.boxes[:, 0] / 20).tolist() == [1, 2, 4, 1, 4]
    torch.testing.assert_close(found.score, torch.tensor([0.5, 0.5, 0.4, 0.9, 0.6]))


def test_an_image_does_not_depend_on_the_batch(select):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 1500, 2, generator=generator) * 200 - 20
    boxes = torch.cat([corner, corner + 10 + 60 * torch.rand(3, 1500, 2, generator=generator)], dim=2)
    objectness = torch.rand(3, 1500, generator=generator)
    probability = torch.rand(3, 1500, 4, generator=generator)
    together = select(boxes, objectness, probability, min_score=0.001, most=300)
    alone = select(boxes[1:2], objectness[1:2], probability[1:2], min_score=0.001, most=300)
    assert 0 < len(alone.boxes) <= 300
    mine = together.where(together.image == 1)
    assert torch.equal(mine.boxes, alone.boxes)
    assert torch.equal(mine.score, alone.score)


def test_nothing_found_and_no_images_are_empty(select):
    found = select(*outputs([A], [0.01], [0]))
    assert [tuple(part.shape) for part in found] == [(0, 4), (0,), (0,), (0,), (0,)]
    assert found.classes.dtype == found.image.dtype == torch.int64
    assert len(select(torch.zeros(0, 5, 4), torch.zeros(0, 5), torch.zeros(0, 5, 2)).boxes) == 0


def test_a_teacher_gives_no_gradient():
    boxes, objectness, probability = (part.requires_grad_() for part in outputs([A], [0.9], [0]))
    found = module.select_boxes(boxes, objectness, probability)
    assert len(found.boxes) == 1
    assert not any(part.requires_grad for part in found)
