"""Tests of fedssl.data.views.motion."""

from __future__ import annotations

import numpy as np
import pytest

from fedssl.data.views import motion
from fedssl.data.views.draws import draws

VIEWS = (motion.weak, motion.strong)
SHAPES = ((30, 3), (30, 6), (4, 1), (61, 2))


def made(count: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 5, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("view", VIEWS)
def test_view_has_the_same_bits_in_any_batch_and_order(view, shape):
    x, index, spread = made(200, shape), np.arange(1000, 1200), (5.0,) * shape[1]
    whole = view(x, index, 77, spread)
    assert whole.dtype == np.float32
    assert whole.shape == x.shape
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(view(x[order], index[order], 77, spread), whole[order])
    for rows in (slice(0, 1), slice(5, 12), slice(17, 190)):
        np.testing.assert_array_equal(view(x[rows], index[rows], 77, spread), whole[rows])
    np.testing.assert_array_equal(x, made(200, shape))


@pytest.mark.parametrize("view", VIEWS)
def test_view_depends_on_key_and_sample(view):
    x = np.repeat(made(1, (30, 3)), 20, axis=0)
    first = view(x, np.arange(20), 1, (1.0,) * 3)
    assert len(np.unique(first, axis=0)) == 20
    assert not (first == view(x, np.arange(20), 2, (1.0,) * 3)).any()
    np.testing.assert_array_equal(view(x, np.arange(20), np.full(20, 1, np.uint64), (1.0,) * 3), first)
    assert view(x[:0], np.zeros(0, np.int64), 1, (1.0,) * 3).shape == (0, 30, 3)


@pytest.mark.parametrize("view", VIEWS)
def test_noise_is_gaussian_in_units_of_each_channel(view):
    noise = view(np.zeros((2000, 30, 2), np.float32), np.arange(2000), 3, (1.0, 40.0))
    assert noise.std(axis=(0, 1)) == pytest.approx((0.05, 2.0), rel=0.01)
    assert noise.mean(axis=(0, 1)) == pytest.approx((0, 0), abs=0.05)
    assert (np.abs(noise[:, :, 0]) < 0.05).mean() == pytest.approx(0.6827, abs=0.01)


def test_weak_multiplies_each_channel_by_one_factor():
    x = made(500, (30, 3))
    factor = motion.weak(x, np.arange(500), 3, (0.0,) * 3).astype(np.float64) / x
    np.testing.assert_allclose(factor, np.repeat(factor[:, :1], 30, axis=1), rtol=1e-5)
    assert factor[:, 0].std() == pytest.approx(0.1, rel=0.05)
    assert factor[:, 0].mean() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(factor[:, 0].T)[0, 1]) < 0.15


def test_rotation_keeps_lengths_and_turns_all_sensors_together_by_up_to_45_degrees():
    gravity = np.zeros((3000, 2, 6))
    gravity[:, :, 2] = gravity[:, :, 5] = 9.8
    turned = motion._rotate(gravity, draws(np.arange(3000), 1, 4))
    np.testing.assert_allclose(np.linalg.norm(turned[:, :, :3], axis=2), 9.8, rtol=1e-12)
    np.testing.assert_allclose(turned[:, :, 3:], turned[:, :, :3], rtol=1e-12)
    angle = np.degrees(np.arccos(turned[:, 0, 2] / 9.8))
    assert 43 < angle.max() <= 45 + 1e-6
    assert angle.mean() > 10
    x = made(50, (7, 3)).astype(np.float64)
    both = motion._rotate(x, draws(np.arange(50), 1, 4))
    products = [(part[:, :1] * part).sum(axis=2) for part in (x, both)]
    np.testing.assert_allclose(products[1], products[0], atol=1e-9)


def test_permutation_moves_whole_segments_and_loses_no_row():
    steps = np.broadcast_to(np.arange(40.0)[None, :, None], (500, 40, 1))
    moved = motion._permute(steps, draws(np.arange(500), 1, 3), draws(np.arange(500), 2, 4))[:, :, 0]
    np.testing.assert_array_equal(np.sort(moved, axis=1), steps[:, :, 0])
    jumps = (np.diff(moved, axis=1) != 1).sum(axis=1)
    assert jumps.max() == 3
    assert len(np.unique(moved[:, 0])) > 10
    assert (jumps == 0).mean() == pytest.approx(1 / 24, abs=0.03)


def test_a_warped_ramp_still_rises_from_its_first_to_its_last_value():
    ramp = np.broadcast_to(np.arange(30.0)[None, :, None], (500, 30, 1))
    warped = motion._warp(ramp, draws(np.arange(500), 1, 5))[:, :, 0]
    np.testing.assert_allclose(warped[:, 0], 0)
    np.testing.assert_allclose(warped[:, -1], 29)
    speed = np.diff(warped, axis=1)
    assert speed.min() > (1 - motion.WARP) / (1 + motion.WARP) - 1e-9
    assert speed.max() < (1 + motion.WARP) / (1 - motion.WARP) + 1e-9
    assert np.abs(warped - ramp[:, :, 0]).max() > 1


def test_other_numbers_of_channels_are_not_turned(monkeypatch):
    monkeypatch.setattr(motion, "_rotate", lambda x, turn: pytest.fail("turned"))
    motion.strong(made(3, (30, 4)), np.arange(3), 1, (1.0,) * 4)
