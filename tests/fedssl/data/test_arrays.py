from __future__ import annotations

import numpy as np

from fedssl.data.arrays import apportion, channel_moments, stratified


def test_apportion_gives_the_largest_remainders_the_rest():
    most = np.array([9, 9, 9])
    np.testing.assert_array_equal(apportion(np.array([2.5, 1.3, 1.2]), most), [3, 1, 1])
    np.testing.assert_array_equal(apportion(np.array([0.0, 4.0, 1.0]), np.array([9, 2, 9])), [0, 2, 2])
    np.testing.assert_array_equal(apportion(np.array([0.0, 4.0]), np.array([9, 2])), [0, 2])


def test_stratified_draws_each_class_and_leaves_one():
    y = np.repeat([0, 1, 2, -1], [10, 20, 1, 50])
    drawn = stratified(y, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(y[drawn], minlength=3), [5, 10, 0])
    most = stratified(y, 0.999, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(y[most], minlength=3), [9, 19, 0])
    assert len(stratified(y, 0.0, np.random.default_rng(0))) == 0


def test_channel_moments_of_two_levels():
    x = np.zeros((2, 8, 8, 1), np.uint8)
    x[0] = 255
    assert channel_moments(x) == ((0.5,), (0.5,))
