"""Tests of fedssl.data.sources.imu_synthetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedssl.data.sources.imu_synthetic import RATE_HZ, ImuSynthetic, rotation

SMALL = ImuSynthetic(users=3, server_subjects=2, windows=10)


def test_counts_and_people():
    data = SMALL.read()
    assert data.shape == (30, 3)
    assert data.server_groups == (0, 1)
    assert np.bincount(data.train.group).tolist() == [4 * 6] * 5
    assert np.bincount(data.test.group).tolist() == [0, 0, *[4 * 3] * 3]
    assert np.bincount(data.train.y).tolist() == [5 * 6] * 4
    assert np.isfinite(data.train.x).all()


def test_the_seed_decides_the_signals_and_every_option_the_fingerprint():
    first = SMALL.read()
    np.testing.assert_array_equal(SMALL.read().train.x, first.train.x)
    assert not (replace(SMALL, seed=1).read().train.x == first.train.x).any()
    names = ("users", "classes", "channels", "windows", "seed", "window", "stride", "server_subjects")
    changed = {replace(SMALL, **{name: getattr(SMALL, name) + 1}).fingerprint() for name in names}
    assert len(changed | {SMALL.fingerprint()}) == 9


def test_people_do_the_same_each_in_an_own_way():
    more = replace(SMALL, users=4)
    np.testing.assert_array_equal(more.read().train.x[: 4 * 6 * 5], SMALL.read().train.x)
    one, other = SMALL._person(0, 300), SMALL._person(1, 300)
    assert not (one == other).any()


def test_an_activity_is_two_sinusoids_a_channel():
    seconds = np.arange(4000) / RATE_HZ
    power = np.abs(np.fft.rfft(SMALL._motion(1, seconds) * np.hanning(4000)[:, None], axis=0)) ** 2
    for channel in power.T:
        top = np.argsort(channel)[::-1]
        near = set()
        for peak in (top[0], next(place for place in top if abs(place - top[0]) > 3)):
            near |= set(range(peak - 3, peak + 4))
        assert channel[sorted(near)].sum() / channel.sum() > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_a_rotation_keeps_lengths_and_handedness(seed):
    turn = rotation(np.random.default_rng(seed), 30)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    assert np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)) <= 30
    np.testing.assert_allclose(rotation(np.random.default_rng(seed), 0), np.eye(3), atol=1e-12)


def test_channels_that_are_no_axes_are_allowed():
    assert replace(SMALL, channels=4).read().shape == (30, 4)
