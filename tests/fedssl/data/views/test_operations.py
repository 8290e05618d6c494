from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from fedssl.data.views.operations import CODE, OPERATIONS, apply_codes, apply_operation

LOW, MIDDLE, HIGH = 0, 1 << 31, (1 << 32) - 1


def run(name: str, x: np.ndarray, bits: int) -> np.ndarray:
    batch = x[None].copy()
    return apply_codes(batch, np.array([CODE[name]]), np.array([bits], np.uint64))[0]


def sample(channels: int) -> np.ndarray:
    pixels = np.random.default_rng(1).integers(30, 200, (16, 16, channels), dtype=np.uint8)
    pixels[2:9, 3:7] = 77
    return pixels


def picture(x: np.ndarray) -> Image.Image:
    return Image.fromarray(x if x.shape[2] == 3 else x[..., 0])


def pixels(image: Image.Image, x: np.ndarray) -> np.ndarray:
    return np.asarray(image).reshape(x.shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_autocontrast_and_solarize_equal_pillow(channels):
    x = np.resize(sample(channels), (40, 40, channels))
    pairs = {
        "equalize": ImageOps.equalize(picture(x)),
        "solarize": ImageOps.solarize(picture(x), 128),
    }
    for name, image in pairs.items():
        np.testing.assert_array_equal(run(name, x, MIDDLE), pixels(image, x))
    ours = run("autocontrast", x, 0).astype(int)
    assert np.abs(ours - pixels(ImageOps.autocontrast(picture(x)), x)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("bits", "factor"), [(LOW, 7 / 128), (MIDDLE, 64 / 128), (HIGH, 121 / 128)])
def test_blends_equal_pillow_to_one_level(channels, bits, factor):
    x = sample(channels)
    enhancers = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast}
    if channels == 3:
        enhancers["colour"] = ImageEnhance.Color
    for name, enhancer in enhancers.items():
        expected = pixels(enhancer(picture(x)).enhance(factor), x).astype(int)
        assert np.abs(run(name, x, bits) - expected).max() <= 1
    smooth = pixels(picture(x).filter(ImageFilter.SMOOTH), x).astype(int)
    expected = smooth + (x - smooth) * factor
    assert np.abs(run("sharpness", x, bits) - expected).max() <= 1.6


def test_posterize_keeps_four_to_eight_bits():
    x = sample(1)
    np.testing.assert_array_equal(run("posterize", x, LOW), x & 0xF0)
    np.testing.assert_array_equal(run("posterize", x, HIGH), x)


def test_translate_moves_whole_pixels_and_fills_with_black():
    x = np.arange(1, 101, dtype=np.uint8).reshape(10, 10, 1)
    left = run("translate_x", x, HIGH)
    np.testing.assert_array_equal(left[:, :7], x[:, 3:])
    assert not left[:, 7:].any()
    down = run("translate_y", x, LOW)
    np.testing.assert_array_equal(down[3:], x[:7])
    assert not down[:3].any()


def test_middle_magnitude_of_geometric_operations_changes_nothing():
    for channels in (1, 3):
        x = sample(channels)
        for name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
            np.testing.assert_array_equal(run(name, x, MIDDLE), x)


def test_rotation_and_shear_equal_pillow_up_to_ties():
    x = np.random.default_rng(2).integers(1, 256, (32, 32, 1), dtype=np.uint8)
    turned = pixels(picture(x).rotate(30), x)
    assert (run("rotate", x, HIGH) == turned).mean() > 0.98
    sheared = picture(x).transform((32, 32), Image.Transform.AFFINE, (1, -0.3, 0.3 * 16, 0, 1, 0))
    assert (run("shear_x", x, LOW) == pixels(sheared, x)).mean() > 0.98


def test_identity_and_flat_samples_stay():
    flat = np.full((8, 8, 3), 100, np.uint8)
    for name in ("identity", "autocontrast", "equalize", "contrast", "sharpness", "colour"):
        np.testing.assert_array_equal(run(name, flat, MIDDLE), flat)


@pytest.mark.parametrize(("channels", "kinds"), [(1, 13), (3, 14)])
def test_all_operations_are_drawn_equally_often(channels, kinds, monkeypatch):
    seen: list[np.ndarray] = []
    monkeypatch.setattr("fedssl.data.views.operations.apply_codes", lambda _x, code, _m: seen.append(code))
    draw = np.random.default_rng(0).integers(0, 1 << 32, kinds * 1000, dtype=np.uint64)
    apply_operation(np.zeros((len(draw), 8, 8, channels), np.uint8), draw, draw)
    counts = np.bincount(seen[0], minlength=kinds)
    assert len(counts) == kinds <= len(OPERATIONS)
    assert counts.min() > 850
    assert counts.max() < 1150
