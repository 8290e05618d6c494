"""The same image in any depth and mode is the same 8-bit image, or is refused."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fedssl.data.eight_bits import eight_bits

GREY = np.random.default_rng(0).integers(0, 256, (6, 9)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257


def stored(image, suffix, **options):
    """Return the image as it is read from a file of this format."""
    buffer = BytesIO()
    image.save(buffer, suffix, **options)
    buffer.seek(0)
    return Image.open(buffer)


def twelve_bits(pixels):
    """Return an opened TIFF of 12-bit samples, which Pillow reads and does not write."""
    height, width = pixels.shape
    bits = (pixels[:, :, None] >> np.arange(11, -1, -1)) & 1
    body = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 9 * 12 + 4), (277, 1)]
    tags += [(278, height), (279, len(body))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return Image.open(BytesIO(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + body))


SAME = {
    "8-bit PNG": lambda: stored(Image.fromarray(GREY), "PNG"),
    "16-bit PNG": lambda: stored(Image.fromarray(DEEP), "PNG"),
    "16-bit TIFF": lambda: stored(Image.fromarray(DEEP), "TIFF"),
    "16-bit TIFF of the other byte order": lambda: stored(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "16-bit PGM": lambda: stored(Image.fromarray(DEEP), "PPM"),
    "floats in 0..1": lambda: stored(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"),
    "16-bit TIFF where white is zero": lambda: stored(Image.fromarray(~DEEP), "TIFF", tiffinfo={262: 0}),
    "12-bit TIFF": lambda: twelve_bits(np.rint(GREY / 255 * 4095).astype(np.uint16)),
    "palette": lambda: stored(Image.fromarray(GREY).convert("P"), "PNG"),
    "opaque alpha": lambda: stored(Image.fromarray(GREY).convert("LA"), "PNG"),
    "opaque colour alpha": lambda: stored(Image.fromarray(GREY).convert("RGBA"), "TIFF"),
    "colour": lambda: stored(Image.fromarray(GREY).convert("RGB"), "PNG"),
    "CMYK": lambda: stored(Image.fromarray(GREY).convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_image_has_the_same_pixels(name):
    with SAME[name]() as image:
        np.testing.assert_array_equal(np.asarray(eight_bits(image, "L")), GREY)
    with SAME[name]() as image:
        np.testing.assert_array_equal(np.asarray(eight_bits(image, "RGB")), np.stack([GREY] * 3, axis=2))


def test_an_image_of_one_bit_is_black_and_white():
    bits = GREY > 127
    with stored(Image.fromarray(bits), "PNG") as image:
        assert image.mode == "1"
        np.testing.assert_array_equal(np.asarray(eight_bits(image, "L")), bits * np.uint8(255))


@pytest.mark.parametrize("pixels", [GREY, DEEP, (GREY / 255).astype(np.float32)], ids=["8", "16", "float"])
def test_every_depth_is_turned_upright(pixels):
    exif = Image.Exif()
    exif[0x112] = 6
    with stored(Image.fromarray(pixels), "TIFF", exif=exif) as image:
        np.testing.assert_array_equal(np.asarray(eight_bits(image, "L")), np.rot90(GREY, -1))


def clear(mode):
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(128)
    return image


REFUSED = {
    "floats above 1": (lambda: stored(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floats are read in 0..1"),
    "floats that are not finite": (
        lambda: stored(Image.fromarray(np.full((6, 9), np.nan, np.float32)), "TIFF"),
        "floats are read in 0..1",
    ),
    "32-bit integers": (lambda: stored(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "8 or 16 bits"),
    "transparent pixels": (lambda: stored(clear("L"), "PNG"), "transparent pixels"),
    "transparent colour pixels": (lambda: stored(clear("RGB"), "WEBP", lossless=True), "transparent pixels"),
    "a transparent colour": (
        lambda: stored(Image.fromarray(GREY), "PNG", transparency=int(GREY[0, 0])),
        "transparent pixels",
    ),
    "a transparent index": (
        lambda: stored(Image.fromarray(GREY).convert("P"), "GIF", transparency=int(GREY[0, 0])),
        "transparent pixels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_may_mean_many_things_is_refused(name):
    make, words = REFUSED[name]
    with make() as image, pytest.raises(ValueError, match=words):
        eight_bits(image, "L")
