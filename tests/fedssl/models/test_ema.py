from __future__ import annotations

import copy

import pytest
import torch

from fedssl.models.ema import ALPHA, ema_alpha, update_ema


def network(value):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


@pytest.mark.parametrize(("steps", "expected"), [(1, 0.001), (20, 0.019811), (156, 0.144508)])
def test_it_moves_towards_a_constant(steps, expected):
    teacher, student = network(0.0), network(1.0)
    for _ in range(steps):
        update_ema(teacher, student, ALPHA)
    for parameter in teacher.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("steps", "expected"), [(5, 0.969267), (10, 0.984513), (20, 0.992226), (40, 0.996106)])
def test_short_epochs_move_as_far(steps, expected):
    alpha = ema_alpha(steps)
    assert alpha == pytest.approx(expected, abs=1e-6)
    assert alpha**steps == pytest.approx(0.855492, abs=1e-6)
    assert ema_alpha(156) == ALPHA


def test_buffers_are_the_students():
    teacher, student = network(0.0), network(1.0)
    student(torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64))
    update_ema(teacher, student, ALPHA)
    assert student[1].num_batches_tracked == 1
    for kept, new in zip(teacher.buffers(), student.buffers(), strict=True):
        assert torch.equal(kept, new)
        assert kept is not new


def test_what_is_frozen_stays_bit_for_bit_and_the_student_stays():
    generator = torch.Generator().manual_seed(0)
    student = torch.nn.ModuleDict({"backbone": torch.nn.Linear(40, 40), "neck": torch.nn.Linear(40, 40)})
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    teacher, start = copy.deepcopy(student), copy.deepcopy(student)
    with torch.no_grad():
        student["backbone"].weight.add_(0.1)
    trained = copy.deepcopy(student)
    for _ in range(7):
        update_ema(teacher, student, ema_alpha(18))
    assert torch.equal(teacher["neck"].weight, start["neck"].weight)
    assert torch.equal(teacher["neck"].bias, start["neck"].bias)
    assert not torch.equal(teacher["backbone"].weight, start["backbone"].weight)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), trained.parameters(), strict=True))
