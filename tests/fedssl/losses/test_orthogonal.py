from __future__ import annotations

import math

import pytest
import torch

from fedssl.losses import orthogonal as module


@pytest.fixture
def deviation(checked):
    return checked(module, "deviation")


def f64(rows):
    return torch.tensor(rows, dtype=torch.float64)


CASES = [
    ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 0.0),
    ([[2, 0], [0, 0.5]], 6.0),
    ([[2, 0], [0, 2]], 6.0),
    ([[1, 0]], 1.0),
    ([[3, 4]], 48.0),
    ([[0, 0, 0], [0, 0, 0]], 2.0),
    ([[1.1, 0], [0, 0.1]], 1.98),
    ([[1], [1]], 2.0),
    ([[1, 1], [0, 1]], 2 * 1.618034),
    ([[0.6]], 1.28),
    ([[2], [1]], 8.0),
    ([[0.6, -0.8], [0.8, 0.6]], 0.0),
]


@pytest.mark.parametrize(("rows", "expected"), CASES)
def test_exact_values(rows, expected):
    assert float(module.orthogonality_exact([f64(rows)])) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("rows", "expected"), CASES)
def test_many_iterations_give_the_exact_value(rows, expected):
    found = module.orthogonality([f64(rows)], 60, torch.Generator().manual_seed(1))
    assert float(found) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("rows", "gradient"),
    [
        ([[2, 0], [0, 0.5]], [[8, 0], [0, 0]]),
        ([[1.1, 0], [0, 0.1]], [[0, 0], [0, -0.4]]),
        ([[3, 4]], [[12, 16]]),
        ([[0.6, 0]], [[-1.2, 0]]),
    ],
)
def test_gradients_exact_iterated_and_by_differences(rows, gradient):
    for value in (
        module.orthogonality_exact,
        lambda matrices: module.orthogonality(matrices, 60, torch.Generator().manual_seed(1)),
    ):
        theta = f64(rows).requires_grad_()
        value([theta]).backward()
        torch.testing.assert_close(theta.grad, f64(gradient), rtol=0, atol=1e-6)
        step = 1e-5
        for place in range(theta.numel()):
            move = torch.zeros(theta.numel(), dtype=torch.float64)
            move[place] = step
            move = move.view_as(theta)
            slope = (value([theta.detach() + move]) - value([theta.detach() - move])) / (2 * step)
            assert float(slope) == pytest.approx(float(f64(gradient).flatten()[place]), abs=1e-4)


@pytest.mark.parametrize(("iters", "expected"), [(1, 2.916106), (2, 2.999657), (3, 2.999999)])
def test_the_estimate_rises_to_the_norm(deviation, iters, expected):
    start = f64([1, 1]) / math.sqrt(2)
    # diag(2, 0.5) has the Gram diag(4, 0.25), that is diag(3, -0.75) beside I.
    found = float(deviation(f64([[2, 0], [0, 0.5]]), start, iters))
    assert found == pytest.approx(expected, abs=1e-6)
    assert found <= 3


def test_eigenvalues_of_both_signs_give_their_size(deviation):
    theta = f64([[math.sqrt(1.5), 0], [0, math.sqrt(0.5)]])
    assert float(deviation(theta, f64([0.3, -2]), 1)) == pytest.approx(0.5, abs=1e-12)


def test_rotations_of_rows_and_columns_change_nothing():
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for n in (3, 5))
    torch.testing.assert_close(module.orthogonality_exact([left @ theta @ right]), module.orthogonality_exact([theta]))
    torch.testing.assert_close(module.orthogonality_exact([theta.T]), module.orthogonality_exact([theta]))


def test_matrices_add_up_and_their_squares_too():
    matrices = [f64([[2, 0], [0, 0.5]]), f64([[0.6, 0]])]
    assert float(module.orthogonality_exact(matrices)) == pytest.approx(3 + 3 + 0.64 + 1)
    assert float(module.orthogonality_exact(matrices, squared=True)) == pytest.approx(9 + 9 + 0.4096 + 1)
    assert module.orthogonality_floor(matrices) == 1
    assert float(module.orthogonality([], 2, torch.Generator())) == 0


def test_starts_come_from_the_generator():
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    one, again, other = (module.orthogonality([theta], 1, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert one != other


def test_half_precision_around_it_changes_nothing():
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    outside = module.orthogonality([theta], 2, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module.orthogonality([theta], 2, torch.Generator().manual_seed(0)), outside)


def test_weights_of_neck_and_head_alone_are_penalised():
    from fedssl.models.networks.detector import Detector

    model = Detector(64, 2, 2, [1, 1, 1, 1], 1)
    matrices = module.weight_matrices(model)
    assert len(matrices) == 4 * 5 + 4 + 3
    assert (16, 16 * 9) in {tuple(matrix.shape) for matrix in matrices}
    module.orthogonality(matrices, 2, torch.Generator().manual_seed(0)).backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(with_gradient) == len(matrices)
    assert {name.split(".")[0] for name in with_gradient} == {"neck", "head"}
    assert all("norm" not in name and "bias" not in name for name in with_gradient)
