from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from fedssl.losses.detection import detection_loss
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.models.detection.anchors import anchors_from
from fedssl.models.detection.assign import Targets
from fedssl.models.detection.select import select_boxes


def pictures(num, generator):
    """Grey pictures with one box each, red (class 0) or blue."""
    side = torch.randint(8, 25, (num, 2), generator=generator)
    corner = (torch.rand(num, 2, generator=generator) * (64 - side)).long()
    classes = torch.arange(num) % 2
    x = torch.full((num, 3, 64, 64), 0.45)
    for i, ((x1, y1), (w, h)) in enumerate(zip(corner.tolist(), side.tolist(), strict=True)):
        x[i, 2 * int(classes[i]), y1 : y1 + h, x1 : x1 + w] = 1
    return x, torch.cat([corner, corner + side], dim=1).float(), classes


def best_overlap(model, x, boxes):
    """The mean IoU of each picture's best box with the true one, and the classes of those boxes."""
    model.eval()
    with torch.no_grad():
        found = select_boxes(*model.decode(model(x)), min_score=0.0, most=1)
    assert found.image.tolist() == list(range(len(x)))
    return box_iou(found.boxes, boxes).diagonal().mean().item(), found.classes


@pytest.mark.slow
def test_a_detector_learns_where_and_what_in_two_hundred_steps():
    generator = torch.Generator().manual_seed(0)
    model = build_model(MODELS.create({"name": "detector", "width": 4}), (64, 64, 3), 2, generator)
    x, boxes, classes = pictures(32, generator)
    with torch.no_grad():
        model.head.anchors.copy_(anchors_from(boxes.numpy(), 0))
    before, _ = best_overlap(model, x, boxes)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(200):
        index = torch.randperm(32, generator=generator)[:16]
        targets = Targets(boxes[index], classes[index], torch.arange(16))
        loss, _ = detection_loss(model(x[index]), targets, model.head.anchors)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    after, found = best_overlap(model, x, boxes)
    assert before < 0.1
    assert after > 0.45
    assert (found == classes).float().mean() > 0.9
