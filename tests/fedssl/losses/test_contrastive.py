from __future__ import annotations

import math

import pytest
import torch

from fedssl.losses import contrastive

E12 = torch.eye(2)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, math.log(1 + 2 / math.e)), (0.5, math.log(1 + 2 / math.e**2))],
)
def test_nt_xent_of_two_orthogonal_samples(checked, temperature, expected):
    loss = checked(contrastive, "nt_xent")(E12, E12, temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_nt_xent_of_equal_vectors_is_the_logarithm_of_the_other_rows(checked):
    ones = torch.ones(2, 3)
    assert checked(contrastive, "nt_xent")(ones, ones, 0.5).item() == pytest.approx(math.log(3), abs=1e-6)


def test_decoupled_leaves_the_positive_out_of_the_denominator(checked):
    loss = checked(contrastive, "decoupled")
    # Two negatives of cosine 0 each: log(1 + 1) - 1 / T.
    assert loss(E12, E12, 1.0).item() == pytest.approx(math.log(2) - 1, abs=1e-6)
    assert loss(E12, E12, 0.5).item() == pytest.approx(math.log(2) - 2, abs=1e-6)
    ones = torch.ones(2, 3)
    assert loss(ones, ones, 0.5).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("loss", [contrastive.nt_xent, contrastive.decoupled])
def test_order_of_views_scale_and_order_of_samples_do_not_matter(loss):
    generator = torch.Generator().manual_seed(0)
    z1, z2 = torch.randn(2, 5, 4, generator=generator)
    expected = loss(z1, z2, 0.5)
    torch.testing.assert_close(loss(z2, z1, 0.5), expected)
    torch.testing.assert_close(loss(3 * z1, 0.1 * z2, 0.5), expected)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(loss(z1[order], z2[order], 0.5), expected)
    assert not torch.isclose(loss(z1, z2[order], 0.5), expected)


@pytest.mark.parametrize("loss", [contrastive.nt_xent, contrastive.decoupled])
def test_a_step_against_the_gradient_brings_views_together(loss):
    generator = torch.Generator().manual_seed(0)
    z1, z2 = (part.requires_grad_() for part in torch.randn(2, 5, 4, generator=generator))
    before = loss(z1, z2, 0.5)
    before.backward()
    assert torch.isfinite(z1.grad).all()
    with torch.no_grad():
        assert loss(z1 - 0.1 * z1.grad, z2 - 0.1 * z2.grad, 0.5) < before
