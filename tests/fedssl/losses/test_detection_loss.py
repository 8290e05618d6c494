from __future__ import annotations

import math

import pytest
import torch

from fedssl.losses import detection as module
from fedssl.losses.detection import LossSettings, detection_loss, pseudo_loss, pseudo_roles
from fedssl.models.detection.assign import Targets
from fedssl.models.detection.select import Detections

SIDES = (8, 4, 2)
CELLS = 3 * 64
LN2 = math.log(2)
NEVER = -100.0
SHIFTED = torch.tensor([[20.0, 20, 28, 28]])
"""Three cells answer for it, whose boxes at output 0 have IoU 1 / 7 with it."""
CIOU = 0.031746
EXACT = torch.tensor([[16.0, 16, 24, 24]])
"""One cell answers for it, whose box at output 0 it is."""


def anchors():
    """Only the first fits boxes of 8 x 8 pixels."""
    made = torch.full((3, 3, 2), 1000.0)
    made[0, 0] = 8
    return made


def blank(batch=1, num_classes=2, objectness=0.0):
    maps = [torch.zeros(batch, 3, side, side, 5 + num_classes) for side in SIDES]
    for level in maps:
        level[..., 4] = objectness
    return [level.requires_grad_() for level in maps]


def targets(boxes, classes=(1,), image=(0,)):
    return Targets(boxes, torch.tensor(classes), torch.tensor(image))


def found(boxes, *labels):
    """One pseudo-label a box: (objectness, class probability), of class 1."""
    objectness, probability = torch.tensor(labels).T
    which = torch.zeros(len(boxes), dtype=torch.long)
    return Detections(boxes, which + 1, which, objectness, objectness * probability)


def logit(p):
    return math.log(p / (1 - p))


def about(expected, within=1e-6):
    return pytest.approx(float(expected), abs=within)


def test_an_exact_box_leaves_class_and_objectness():
    loss, parts = detection_loss(blank(), targets(EXACT), anchors())
    assert parts["box"].item() == about(0)
    assert parts["class"].item() == about(LN2)
    assert parts["objectness"].item() == about((4 + 1 + 0.4) * LN2)
    assert loss.item() == about(0.3 * LN2 + 0.7 * 5.4 * LN2)


def test_a_shifted_box_is_judged_by_ciou_in_three_cells():
    maps = blank(objectness=NEVER)
    with torch.no_grad():
        maps[0][0, 0, 3, 3, 4] = logit(0.9)
    loss, parts = detection_loss(maps, targets(SHIFTED), anchors())
    assert parts["box"].item() == about(1 - CIOU)
    cell = -(CIOU * math.log(0.9) + (1 - CIOU) * math.log(0.1))
    assert parts["objectness"].item() == about(4 * (cell + 2 * 100 * CIOU) / CELLS, within=1e-5)
    assert loss.item() == about(0.05 * parts["box"] + 0.3 * LN2 + 0.7 * parts["objectness"])


def test_a_target_of_one_and_a_smooth_l1_box_can_be_chosen():
    maps = blank(objectness=NEVER)
    with torch.no_grad():
        maps[0][0, 0, 3, 3, 4] = logit(0.9)
    _, parts = detection_loss(maps, targets(SHIFTED), anchors(), LossSettings(obj_target="one", box_loss="smooth_l1"))
    # Every coordinate is half a cell away: 0.5 * 0.5^2.
    assert parts["box"].item() == about(0.125)
    assert parts["objectness"].item() == about(4 * (-math.log(0.9) + 200) / CELLS, within=1e-5)


def test_focal_loss_weighs_by_what_is_missed():
    _, parts = detection_loss(blank(), targets(EXACT), anchors(), LossSettings(focal=2.0, obj_target="one"))
    assert parts["class"].item() == about(0.25 * LN2 * (0.25 + 0.75) / 2)
    negative = 0.75 * 0.25 * LN2
    assert parts["objectness"].item() == about(4 * (negative + (0.25 * 0.25 * LN2 - negative) / CELLS) + 1.4 * negative)


def test_levels_are_means_of_their_own_and_added():
    sizes = anchors()
    sizes[1, 2] = 8
    _, parts = detection_loss(blank(), targets(EXACT), sizes)
    # On level 2 the centre (20, 20) is in cell (1, 1) whose box is at (24, 24), and so are two neighbours' boxes.
    intersection, diagonal = 4 * 4, 12 * 12 * 2
    middle = intersection / (128 - intersection) - 32 / diagonal
    beside = 0 - (4**2 + 12**2) / (12**2 + 20**2)
    assert parts["box"].item() == about(1 - (middle + 2 * beside) / 3)
    assert parts["class"].item() == about(2 * LN2)


def test_the_batch_size_multiplies():
    one, _ = detection_loss(blank(1), targets(SHIFTED), anchors())
    boxes = torch.cat([SHIFTED] * 3)
    three, _ = detection_loss(blank(3), targets(boxes, (1, 1, 1), (0, 1, 2)), anchors())
    assert three.item() == about(3 * one.item(), within=1e-5)


def test_images_without_boxes_are_background():
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    maps = blank(2)
    loss, parts = detection_loss(maps, nothing, anchors())
    assert loss.item() == about(2 * 0.7 * 5.4 * LN2, within=1e-5)
    assert parts["box"] == parts["class"] == 0
    loss.backward()
    assert maps[0].grad[..., :4].abs().sum() == 0
    # d BCE / d logit = p - 0 = 0.5, times 2 * 0.7 * 4 / number of cells.
    assert float(maps[0].grad[1, 2, 7, 7, 4]) == about(2 * 0.7 * 4 * 0.5 / (2 * CELLS))


def test_the_objectness_target_has_no_gradient():
    maps = blank()
    loss, _ = detection_loss(maps, targets(SHIFTED), anchors(), LossSettings(box=0.0, class_=0.0))
    loss.backward()
    assert maps[0].grad[..., :4].abs().sum() == 0
    assert float(maps[0].grad[0, 0, 3, 3, 4]) == about(0.7 * 4 * (0.5 - CIOU) / CELLS)


def test_a_single_class_can_be_learnt():
    loss, parts = detection_loss(blank(num_classes=1), targets(EXACT, (0,)), anchors())
    assert parts["class"].item() == about(LN2)
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("objectness", "probability", "class_", "box", "soft"),
    [
        (0.9, 0.8, True, True, None),
        (0.995, 0.5, False, True, 0.995),
        (0.5, 0.6, False, False, 0.5),
        (0.2, 0.4, False, False, 0.0),
        (0.6, 1.0, False, False, 0.6),
        (0.1, 1.0, False, False, 0.1),
    ],
)
def test_the_score_decides_what_a_pseudo_label_teaches(objectness, probability, class_, box, soft):
    score = torch.tensor([objectness * probability])
    roles = pseudo_roles(torch.tensor([objectness]), score, 0.1, 0.6)
    assert bool(roles.reliable) is class_
    assert bool(roles.box) is box
    if soft is not None:
        assert float(roles.soft) == about(soft)
    _, parts = pseudo_loss(blank(objectness=NEVER), found(EXACT + 4, (objectness, probability)), anchors())
    assert (parts["class"] > 0) == class_
    assert (parts["box"] > 0) == box


@pytest.mark.parametrize(
    ("label", "p", "expected"), [((0.4, 0.75), 0.9, 1.423695), ((0.995, 0.5), 0.3, 1.199736), ((0.2, 0.4), 0.5, LN2)]
)
def test_an_uncertain_label_has_its_own_objectness_as_target(label, p, expected):
    maps = blank(objectness=NEVER)
    with torch.no_grad():
        maps[0][0, 0, 2, 2, 4] = logit(p)
    _, parts = pseudo_loss(maps, found(EXACT, label), anchors())
    assert parts["objectness"].item() == about(4 * expected / CELLS)


def test_a_reliable_label_is_a_true_one():
    loss, parts = pseudo_loss(blank(), found(SHIFTED, (0.9, 0.8)), anchors())
    true_loss, true_parts = detection_loss(blank(), targets(SHIFTED), anchors())
    assert torch.equal(loss, true_loss)
    assert parts == true_parts


def test_without_pseudo_labels_nothing_is_taught():
    maps = blank(2)
    with torch.no_grad():
        maps[1].fill_(math.inf)
    loss, parts = pseudo_loss(maps, found(EXACT, (0.9, 0.8)).where(torch.tensor([False])), anchors())
    assert loss.item() == 0
    assert [float(part) for part in parts.values()] == [0, 0, 0]
    loss.backward()
    assert all(level.grad.abs().sum() == 0 for level in maps)


def test_where_labels_meet_the_reliable_then_the_greater_wins(checked):
    place = torch.tensor([0, 0, 0, 1, 1, 2, 2, 4])
    value = torch.tensor([0.3, 0.9, 0.2, 0.4, 0.8, 0.6, 0.5, 0.0])
    reliable = torch.tensor([True, False, True, False, False, True, True, True])
    made = checked(module, "objectness_target")(5, place, value, reliable)
    torch.testing.assert_close(made, torch.tensor([0.3, 0.8, 0.6, 0.0, 0.0]))
    assert torch.equal(made, module.objectness_target(5, place.flip(0), value.flip(0), reliable.flip(0)))


def test_half_precision_maps_give_a_float32_loss():
    loss, _ = detection_loss([level.detach().bfloat16() for level in blank()], targets(EXACT), anchors())
    assert loss.dtype == torch.float32
    assert loss.item() == about((0.3 + 0.7 * 5.4) * LN2)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 0.031746),
        ((0, 0, 2, 1), (0, 0, 1, 2), 0.237082),
        ((0, 0, 1, 1), (2, 0, 3, 1), -0.4),
        ((0, 0, 2, 1), (0, 0, 2, 1), 1.0),
    ],
)
def test_ciou_has_the_known_values(first, second, expected):
    boxes, goal = (torch.tensor([box], dtype=torch.float64) for box in (first, second))
    loss, ciou = module._box_terms(boxes, goal, 8, "ciou")
    assert float(ciou) == about(expected)
    assert loss.item() == about(1 - expected)
