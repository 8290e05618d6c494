"""The operations of RandAugment as FixMatch uses them (Sohn et al. 2020, table 12).

Each works on all its samples at once. Those that map a pixel by its value alone are tables of 256
bytes; geometric ones are one gather in 16.16 fixed point, black outside as in FixMatch's code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import Ints
from fedssl.data.views.draws import below, between

Bytes = NDArray[np.uint8]
Draws = NDArray[np.uint64]

OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "brightness",
    "contrast",
    "posterize",
    "solarize",
    "sharpness",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "colour",
)
CODE = {name: code for code, name in enumerate(OPERATIONS)}
_GREY_WEIGHTS = np.array([19595, 38470, 7471], np.int64)
_ONE = 1 << 16
_MOVES = np.array([[CODE[name]] for name in ("shear_x", "shear_y", "translate_x", "translate_y")], np.int64)


def apply_operation(x: Bytes, choice: Draws, magnitude: Draws) -> Bytes:
    """Change each sample of `x` (batch, height, width, channels), in place, by one drawn operation.

    Grey samples have no `colour`, all others are equally likely.
    """
    code = below(choice, len(OPERATIONS) if x.shape[3] == 3 else CODE["colour"])
    return apply_codes(x, code, magnitude)


def apply_codes(x: Bytes, code: Ints, magnitude: Draws) -> Bytes:
    """Change each sample in place by `OPERATIONS[code]`; `magnitude` are its 32 random bits."""
    tables = np.flatnonzero((code >= CODE["autocontrast"]) & (code <= CODE["solarize"]))
    if len(tables):
        part = x[tables]
        x[tables] = _look_up(part, _tables(part, code[tables], magnitude[tables]))
    moved = np.flatnonzero((code >= CODE["rotate"]) & (code <= CODE["translate_y"]))
    if len(moved):
        x[moved] = _affine(x[moved], code[moved], magnitude[moved])
    for name, change in (("sharpness", _sharpness), ("colour", _colour)):
        rows = np.flatnonzero(code == CODE[name])
        if len(rows):
            x[rows] = change(x[rows], _factor(magnitude[rows]))
    return x


def _factor(magnitude: Draws) -> Ints:
    """Return the factor B of the table, 0.05..0.95, in 128ths."""
    return 7 + below(magnitude, 115)


def _tables(x: Bytes, code: Ints, magnitude: Draws) -> Bytes:
    """Return what each pixel value becomes, uint8 (batch, channels, 256)."""
    batch, _, _, channels = x.shape
    value = np.arange(256)
    out = np.empty((batch, channels, 256), np.uint8)
    for name in OPERATIONS[CODE["autocontrast"] : CODE["sharpness"]]:
        rows = np.flatnonzero(code == CODE[name])
        if not len(rows):
            continue
        bits = magnitude[rows]
        table: Ints | NDArray[np.int32]
        if name == "autocontrast":
            table = _autocontrast(x[rows])
        elif name == "equalize":
            table = _equalize(x[rows])
        elif name == "brightness":
            table = (value * _factor(bits)[:, None] >> 7)[:, None]
        elif name == "contrast":
            mean = _mean_grey(x[rows])[:, None]
            table = (mean + ((value - mean) * _factor(bits)[:, None] >> 7))[:, None]
        elif name == "posterize":
            table = (value & (0xFF00 >> 4 + below(bits, 5))[:, None])[:, None]
        else:
            table = np.where(value < below(bits, 257)[:, None], value, 255 - value)[:, None]
        out[rows] = table
    return out


def _look_up(x: Bytes, table: Bytes) -> Bytes:
    batch, height, width, channels = x.shape
    place = x.reshape(batch, height, width * channels).astype(np.intp)
    if channels == 1:
        place += np.arange(0, batch * 256, 256)[:, None, None]
    else:
        starts = np.arange(0, batch * channels * 256, 256).reshape(batch, channels)
        place += np.tile(starts, width)[:, None, :]
    out: Bytes = table.ravel().take(place).reshape(x.shape)
    return out


def _autocontrast(x: Bytes) -> Ints:
    """Stretch each channel to 0..255; a channel of one value stays."""
    batch, height, width, channels = x.shape
    rows = x.reshape(batch, height, width * channels)
    low = rows.min(axis=1).reshape(batch, width, channels).min(axis=1).astype(np.int64)
    high = rows.max(axis=1).reshape(batch, width, channels).max(axis=1).astype(np.int64)
    flat = high == low
    low[flat], high[flat] = 0, 255
    # Entries beyond low..high wrap round, but are never looked up.
    out: Ints = (np.arange(256) - low[:, :, None]) * 255 // (high - low)[:, :, None]
    return out


def _equalize(x: Bytes) -> NDArray[np.int32]:
    """Flatten each channel's histogram as Pillow's ImageOps.equalize does."""
    batch, height, width, channels = x.shape
    planes = batch * channels
    place = x.reshape(batch, height, width * channels).astype(np.intp)
    place += np.tile(np.arange(0, planes * 256, 256).reshape(batch, channels), width)[:, None, :]
    counts = np.bincount(place.ravel(), minlength=planes * 256).astype(np.int32).reshape(planes, 256)
    last = 255 - (counts[:, ::-1] > 0).argmax(axis=1)
    tail = counts[np.arange(planes), last]
    step = ((height * width - tail) // 255)[:, None]
    before = counts.cumsum(axis=1, dtype=np.int32) - counts
    before += step // 2
    before //= np.maximum(step, 1)
    out = np.where(step > 0, np.minimum(before, 255), np.arange(256, dtype=np.int32))
    return out.reshape(batch, channels, 256)


def _mean_grey(x: Bytes) -> Ints:
    batch, height, width, channels = x.shape
    count = height * width
    if channels == 1:
        total = x.reshape(batch, -1).sum(axis=1, dtype=np.int64)
        grey: Ints = (total + count // 2) // count
        return grey
    sums = x.reshape(batch, height, -1).sum(axis=1, dtype=np.int64)
    weighted = sums.reshape(batch, width, 3).sum(axis=1) @ _GREY_WEIGHTS
    mean: Ints = (weighted + (count << 15)) // (count << 16)
    return mean


def _sharpness(x: Bytes, factor: Ints) -> Bytes:
    """Blend with the 3x3 smoothed sample (weights 1, centre 5); the outermost pixels stay."""
    batch, height, width, channels = x.shape
    image = x.reshape(batch, height, width * channels).astype(np.int16)
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    total = rows[:, :, : -2 * channels] + rows[:, :, channels:-channels] + rows[:, :, 2 * channels :]
    inner = image[:, 1:-1, channels:-channels]
    smooth = ((total + 4 * inner + 6).view(np.uint16) // np.uint16(13)).view(np.int16)
    out = x.copy()
    inside = out.reshape(image.shape)[:, 1:-1, channels:-channels]
    inside[...] = _blend(smooth, inner, factor)
    return out


def _colour(x: Bytes, factor: Ints) -> Bytes:
    """Blend with the sample's own greys."""
    red, green, blue = (x[..., channel].astype(np.int32) for channel in range(3))
    grey = ((19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16).astype(np.int16)
    batch, height, width, _ = x.shape
    flat = x.reshape(batch, height, width * 3).astype(np.int16)
    return _blend(grey.repeat(3, axis=2), flat, factor).astype(np.uint8).reshape(x.shape)


def _blend(base: NDArray[np.int16], image: NDArray[np.int16], factor: Ints) -> NDArray[np.int16]:
    """Return base + (image - base) * factor / 128; the product fits 16 bits."""
    share = factor.astype(np.int16)[:, None, None]
    out: NDArray[np.int16] = base + ((image - base) * share >> np.int16(7))
    return out


def _affine(x: Bytes, code: Ints, magnitude: Draws) -> Bytes:
    """Fetch each pixel from where the sample's affine map about the centre points; nearest."""
    batch, height, width, channels = x.shape
    xx, xy, yx, yy, dx, dy = _affine_maps(code, between(magnitude, -1.0, 1.0), height, width)
    column = 2 * np.arange(width, dtype=np.int32) + 1 - width
    row = 2 * np.arange(height, dtype=np.int32) + 1 - height
    # Half steps: twice the distance from the centre times half the 16.16 coefficient.
    source_x = (row[:, None] * (xy >> 1)[:, None, None] + (dx + width * _ONE // 2)[:, None, None]) + (
        column * (xx >> 1)[:, None]
    )[:, None, :]
    source_y = (row[:, None] * (yy >> 1)[:, None, None] + (dy + height * _ONE // 2)[:, None, None]) + (
        column * (yx >> 1)[:, None]
    )[:, None, :]
    source_x >>= 16
    source_y >>= 16
    inside = (source_x.view(np.uint32) < width) & (source_y.view(np.uint32) < height)
    source_y *= width
    source_y += source_x
    source_y += np.arange(0, batch * height * width, height * width, dtype=np.int32)[:, None, None]
    source_y *= inside
    out: Bytes = x.reshape(-1, channels).take(source_y, axis=0)
    if channels == 1:
        out.reshape(inside.shape)[...] *= inside
    else:
        flat = out.reshape(batch, height, width * channels)
        flat *= inside.repeat(channels, axis=2)
    return out


def _affine_maps(code: Ints, amount: NDArray[np.float64], height: int, width: int) -> NDArray[np.int32]:
    """Return (xx, xy, yx, yy, dx, dy), int32 in 16.16: source x is xx * x + xy * y + dx.

    Positions are from the centre. `amount` in -1..1 is a part of 30 degrees, a shear of 0.3, or a
    shift by 0.3 of the side.
    """
    angle = np.deg2rad(30.0 * amount) * (code == CODE["rotate"])
    sine, cosine = np.sin(angle), np.cos(angle)
    moves = 0.3 * amount * (code == _MOVES)
    parts = np.stack((cosine, moves[0] - sine, moves[1] + sine, cosine, moves[2], moves[3]))
    parts[4:] = np.rint(parts[4:] * [[width], [height]])
    fixed: NDArray[np.int32] = np.rint(parts * _ONE).astype(np.int32)
    return fixed
