from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedssl.pretraining.views import (
    change_colours,
    change_light,
    crop,
    draw_boxes,
    draw_colours,
    normalise,
    random_views,
)

HALF_STRENGTH = {"flip": True, "least_area": 0.2, "jitter": 0.4}
STILL = torch.tensor([False])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(batch: int, height: int, width: int, channels: int) -> torch.Tensor:
    made = np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(made)


def whole(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.tensor([[0.0, 0.0, height, width]]).repeat(batch, 1)


def test_the_whole_box_gives_the_image_back_and_its_mirror_image():
    x = torch.rand(2, 3, 6, 9, generator=generator())
    out = crop(x, whole(2, 6, 9), torch.tensor([False, True]))
    torch.testing.assert_close(out[0], x[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(out[1], x[1].flip(2), rtol=0, atol=1e-5)


def test_a_box_is_enlarged_bilinearly():
    # A ramp along the columns; the right half of 4 columns is 2..4, its four parts have the centres 2.25, 2.75, ...
    x = torch.arange(4.0).expand(1, 1, 4, 4)
    out = crop(x, torch.tensor([[1.0, 2.0, 2.0, 2.0]]), STILL)
    # The value at position p is p - 0.5, and 3 behind the centre of the last pixel.
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([1.75, 2.25, 2.75, 3.0]))
    rows = crop(x.mT.contiguous(), torch.tensor([[2.0, 1.0, 2.0, 2.0]]), STILL)
    torch.testing.assert_close(rows[0, 0, :, 0], torch.tensor([1.75, 2.25, 2.75, 3.0]))


# Of 20 x 90, a fifth of the area is already 19 pixels high at the aspect of 1, so that few boxes fit.
@pytest.mark.parametrize(("height", "width", "share"), [(32, 32, 0.98), (20, 90, 0.25)])
def test_boxes_lie_in_the_image_with_the_asked_area_and_aspect(height, width, share):
    top, left, tall, wide = draw_boxes(4000, height, width, generator(), least_area=0.2).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= height + 1e-4).all()
    assert (left + wide <= width + 1e-4).all()
    fits = (tall < height) & (wide < width)
    area, aspect = tall * wide / (height * width), wide / tall
    assert ((area >= 0.2 - 1e-5) & (area <= 1 + 1e-5))[fits].all()
    assert ((aspect >= 0.75 - 1e-5) & (aspect <= 4 / 3 + 1e-5))[fits].all()
    assert fits.float().mean() > share


def colours(batch: int, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0):
    return tuple(torch.full((batch,), value) for value in (brightness, contrast, saturation, hue))


def test_colours_without_change_give_the_image_back():
    x = torch.rand(2, 3, 5, 5, generator=generator())
    torch.testing.assert_close(change_colours(x, *colours(2)), x, rtol=0, atol=1e-6)


def test_each_colour_change_is_its_formula():
    x = torch.tensor([[[[0.2, 0.4]], [[0.3, 0.3]], [[0.4, 0.2]]]])
    luma = (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])[:, None]
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(change_colours(x, *colours(1, brightness=1.4)), 1.4 * x, **close)
    expected = 0.6 * x + 0.4 * luma.mean()
    torch.testing.assert_close(change_colours(x, *colours(1, contrast=0.6)), expected, **close)
    expected = 1.2 * x - 0.2 * luma
    torch.testing.assert_close(change_colours(x, *colours(1, saturation=1.2)), expected, **close)
    torch.testing.assert_close(change_colours(x, *colours(1, saturation=0.0)), luma.expand_as(x), **close)
    turned = change_colours(x, *colours(1, hue=0.1))
    torch.testing.assert_close((0.299 * turned[:, 0] + 0.587 * turned[:, 1] + 0.114 * turned[:, 2])[:, None], luma)
    assert (turned - x).abs().max() > 0.02
    # A tenth of a turn, ten times, is a whole one.
    torch.testing.assert_close(change_colours(x, *colours(1, hue=1.0)), x, **close)


def test_values_stay_within_0_and_1():
    x = torch.rand(8, 3, 4, 4, generator=generator())
    out = change_colours(x, *colours(8, brightness=1.4, contrast=1.4))
    assert out.min() == 0
    assert out.max() == 1


def test_a_fifth_of_the_samples_jitter_not_and_a_fifth_turn_grey():
    brightness, contrast, saturation, hue = draw_colours(20_000, generator(), jitter=0.4)
    still = hue == 0
    assert still.float().mean() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(brightness == 1, still)
    assert torch.equal(contrast == 1, still)
    assert (saturation == 0).float().mean() == pytest.approx(0.2, abs=0.01)
    assert (saturation[still & (saturation != 0)] == 1).all()
    assert brightness.min() >= 0.6
    assert brightness.max() <= 1.4
    assert hue.abs().max() <= 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_a_function_of_the_generator(channels):
    x = pictures(6, 12, 12, channels)
    first = random_views(x, generator(1), **HALF_STRENGTH)
    assert first.shape == (6, channels, 12, 12)
    assert torch.equal(random_views(x, generator(1), **HALF_STRENGTH), first)
    assert not torch.equal(random_views(x, generator(2), **HALF_STRENGTH), first)


def test_light_changes_by_the_formula():
    x = torch.tensor([0.2, 0.4, 0.6, 0.8]).view(1, 1, 2, 2)
    out = change_light(x, torch.tensor([0.5]), torch.tensor([2.0]))
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 0.15, 0.35, 0.55]))


def test_the_light_of_one_channel_jitters_around_its_own():
    x = torch.full((2000, 4, 4, 1), 102, dtype=torch.uint8)
    views = random_views(x, generator(), flip=True, least_area=0.2, jitter=0.8)
    factor = views[:, 0, 0, 0] / 0.4
    assert (factor - 1).abs().max() <= 0.8
    assert ((factor - 1).abs() < 1e-5).float().mean() == pytest.approx(0.2, abs=0.03)
    assert factor.std() == pytest.approx(0.8 * math.sqrt(0.8 / 3), abs=0.02)


def test_without_jitter_one_channel_is_cropped_and_mirrored_only():
    x = torch.full((50, 8, 8, 1), 51, dtype=torch.uint8)
    views = random_views(x, generator(), flip=True, least_area=0.2, jitter=0)
    torch.testing.assert_close(views, torch.full((50, 1, 8, 8), 0.2))


def test_a_view_shows_at_least_the_area_asked_for():
    boxes = draw_boxes(2000, 30, 30, generator(), least_area=0.7)
    assert (boxes[:, 2] * boxes[:, 3] / 900).min() >= 0.7


def test_without_flip_no_view_is_mirrored():
    # Columns grow to the right; only a mirrored view could fall.
    x = (torch.arange(16, dtype=torch.uint8) * 16).view(1, 1, 16, 1).expand(64, 16, 16, 1)
    for flip, share in ((False, 0.0), (True, 0.5)):
        views = random_views(x, generator(3), flip=flip, least_area=0.2, jitter=0)
        falls = (views[:, 0, :, -1] < views[:, 0, :, 0]).all(dim=1).float().mean()
        assert falls == pytest.approx(share, abs=0.15 if flip else 0)


def test_normalise_is_by_channel_and_channels_last():
    x = torch.ones(2, 3, 4, 4) * torch.tensor([0.5, 0.7, 0.1]).view(1, 3, 1, 1)
    out = normalise(x, (0.5, 0.5, 0.5), (0.25, 0.1, 0.2))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([0.0, 2.0, -2.0]))
    assert out.is_contiguous(memory_format=torch.channels_last)
