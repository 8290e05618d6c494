"""Tests of fedssl.data.sources.weather."""

from __future__ import annotations

import numpy as np
import pytest

from fedssl.data.sources.weather import WEATHERS, gaussian, overcast, rainy, render, smooth_noise, snowy


@pytest.fixture
def street() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("weather", range(4))
def test_severity_zero_is_the_picture_itself(weather, street):
    assert (render(street, weather, 0, seed=0, image=3) == street).all()
    for change in (overcast, rainy, snowy):
        x = street / 255
        np.testing.assert_allclose(change(x, 0.0, np.random.default_rng(0)), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weather", [1, 2, 3])
def test_bytes_depend_on_seed_picture_weather_and_severity_alone(weather, street):
    first = render(street, weather, 3, seed=0, image=5)
    assert first.dtype == np.uint8
    assert first.tobytes() == render(street.copy(), weather, 3.0, seed=0, image=5).tobytes()
    for other in ({"seed": 1, "image": 5}, {"seed": 0, "image": 6}):
        assert render(street, weather, 3, **other).tobytes() != first.tobytes()
    assert render(street, weather, 2, seed=0, image=5).tobytes() != first.tobytes()
    assert WEATHERS[0] == "cloudy"
    assert (render(street, 0, 3, seed=0, image=5) == street).all()


def test_overcast_by_the_formula():
    x = np.full((8, 8, 3), 0.9)
    fog = 0.05 * 3 * (0.7 + 0.6 * smooth_noise((8, 8), np.random.default_rng(1)))[..., None]
    # 0.5 + (1 - 0.24) * 0.4 - 0.09 = 0.714
    expected = (1 - fog) * 0.714 + 0.7 * fog
    np.testing.assert_allclose(overcast(x, 3, np.random.default_rng(1)), np.broadcast_to(expected, x.shape))
    assert fog.min() == pytest.approx(0.105)
    assert fog.max() == pytest.approx(0.195)


def test_rain_is_darker_ground_and_brighter_streaks():
    found = rainy(np.full((100, 80, 3), 0.4), 2, np.random.default_rng(0))
    assert np.unique(found.round(9)).tolist() == [0.36, 0.86]
    wet = (found[..., 0] > 0.5).mean()
    # Streaks of 6 pixels from points of density 0.004, less where they meet.
    assert wet == pytest.approx(1 - (1 - 0.004) ** 6, abs=0.006)


def test_snow_whitens_and_flakes_are_in_front():
    found = snowy(np.full((100, 80, 3), 0.25), 5, np.random.default_rng(0))
    assert found.min() == pytest.approx(0.8 * 0.25 + 0.2)
    assert 0.9 < found.max() <= 0.95
    assert 0.02 < (found[..., 0] > 0.5).mean() < 0.15


def test_a_blur_of_nothing_is_nothing_and_channels_do_not_mix():
    x = np.zeros((9, 9, 3))
    x[4, 4, 1] = 1
    assert (gaussian(x, 0.0) == x).all()
    found = gaussian(x, 1.0)
    assert found[..., [0, 2]].sum() == 0
    assert found.sum() == pytest.approx(1)
    assert found[4, 5, 1] / found[4, 4, 1] == pytest.approx(np.exp(-0.5))
