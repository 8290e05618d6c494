"""Strong views of scenes, and where a box of the stored picture lies in such a view.

A view is an affine map of the picture (flip, scale, shift), perhaps of four pictures (mosaic), then changes that leave
boxes alone: colours, blur, cutout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.data.boxes import GREY
from fedssl.data.views.draws import Key, below, between, draws

SCALE = (0.5, 1.5)
BLUR = (0.1, 1.5)
GREYED, BLURRED = 0.2, 0.5
CUTOUTS, CUTOUT_SIDE = 2, 0.25
MIN_VISIBLE, MIN_SIDE = 0.2, 2.0
"""A mapped box counts if at least this share of its area, and this many pixels each way, are in the view."""
_DRAWS = 13 + 3 * CUTOUTS
_RADIUS = 3


@dataclass(frozen=True)
class Transform:
    """Where the pixels of stored pictures lie in the views of a batch, b views of t tiles; t = 1, or 4 with mosaic.

    `matrix` (t, b, 2, 3) maps (x, y, 1) in pixels of the picture to pixels of the view; `source` int64 (t, b) is the
    place in the batch of the picture in that tile; `window` (t, b, 4), xyxy, is the part of the view that shows it.
    """

    matrix: torch.Tensor
    source: torch.Tensor
    window: torch.Tensor


def identity(count: int, size: int, device: torch.device) -> Transform:
    """Return the transform of pictures as they are stored."""
    window = torch.tensor([0.0, 0.0, size, size], device=device).repeat(1, count, 1)
    return Transform(
        torch.eye(2, 3, device=device).repeat(1, count, 1, 1), torch.arange(count, device=device)[None], window
    )


def map_boxes(
    boxes: torch.Tensor, image_index: torch.Tensor, transform: Transform
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return boxes (m, 4) of stored pictures in the views, clipped, and a mask (m,) of those that count.

    `image_index` (m,) is each box's place in the batch. Raises ValueError for a mosaic: see `place_boxes`.
    """
    if len(transform.source) > 1:
        raise ValueError("a mosaic shows a picture in several views: use place_boxes")
    return _mapped(boxes, transform.matrix[0, image_index], transform.window[0, image_index])


def place_boxes(
    boxes: torch.Tensor, image_index: torch.Tensor, transform: Transform
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the boxes that count in the views (k, 4), their views (k,), ascending, and their rows in `boxes` (k,).

    A picture is in one view, or in the four of a mosaic, so a box comes up to four times.
    """
    tile, view, row = torch.nonzero(transform.source[:, :, None] == image_index, as_tuple=True)
    placed, kept = _mapped(boxes[row], transform.matrix[tile, view], transform.window[tile, view])
    order = torch.argsort(view[kept], stable=True)
    return placed[kept][order], view[kept][order], row[kept][order]


def strong(
    x: torch.Tensor,
    index: NDArray[np.int64],
    key: Key,
    *,
    flip: bool,
    mosaic: bool = False,
    device: torch.device | None = None,
) -> tuple[torch.Tensor, Transform]:
    """Return strong views, float32 (batch, 3, size, size) in 0..1, of x, uint8 (batch, size, size, 3) on the CPU.

    The second is how boxes map into them. `index` are the samples' numbers in the data set: without `mosaic`, draws
    belong to the sample and not to the batch. Scale is 0.5 to 1.5; a smaller picture lies anywhere in the view, a
    larger one is cropped anywhere.
    """
    draw = draws(index, key, _DRAWS)
    size = x.shape[1]
    placed = _placed(draw, size, flip)
    tiles = _mosaic(placed, draw, size) if mosaic else [(placed, np.tile([0, 0, size, size], (len(x), 1)))]
    # Callers may be in autocast, whose matrix products would give the views in half precision.
    with torch.autocast((device or x.device).type, enabled=False):
        out = _drawn(x, tiles).to(device).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        out = _colours(out, draw[4:9])
        out = _blur(out, draw[9:11])
        out = _cutout(out, draw[13:])
    return out.contiguous(memory_format=torch.channels_last), _transform(tiles, size, out.device)


@dataclass(frozen=True)
class _Placed:
    """Where pictures lie in a view, in whole pixels: new side, corner, and whether mirrored; all (batch,)."""

    source: NDArray[np.int64]
    side: NDArray[np.int64]
    left: NDArray[np.int64]
    top: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


_Tiles = list[tuple[_Placed, NDArray[np.int64]]]
"""What lies in each tile of the views, and the tile's window (batch, 4), xyxy."""


def _placed(draw: NDArray[np.uint64], size: int, flip: bool) -> _Placed:
    side = np.rint(between(draw[0], *SCALE) * size).astype(np.int64)
    free = size - side
    left, top = (np.sign(free) * below(draw[row], np.abs(free) + 1) for row in (1, 2))
    mirrored = (between(draw[3], 0, 1) < 0.5) & flip
    return _Placed(np.arange(len(side)), side, left, top, mirrored)


def _mosaic(placed: _Placed, draw: NDArray[np.uint64], size: int) -> _Tiles:
    """Put four pictures of the batch about a centre in the middle half of the view; each has a corner there."""
    across, down = (size // 4 + below(draw[row], size // 2 + 1) for row in (11, 12))
    ends, starts = np.full(len(across), size), np.zeros(len(across), np.int64)
    tiles = []
    for tile in range(4):
        source = np.roll(placed.source, -tile)
        side, right, lower = placed.side[source], bool(tile & 1), bool(tile & 2)
        left, top = across if right else across - side, down if lower else down - side
        columns, rows = (across, ends) if right else (starts, across), (down, ends) if lower else (starts, down)
        window = np.stack([columns[0], rows[0], columns[1], rows[1]], axis=1)
        tiles.append((_Placed(source, side, left, top, placed.mirrored[source]), window))
    return tiles


def _transform(tiles: _Tiles, size: int, device: torch.device) -> Transform:
    matrix = np.zeros((len(tiles), len(tiles[0][1]), 2, 3))
    for one, (placed, _) in zip(matrix, tiles, strict=True):
        scale = placed.side / size
        one[:, 0, 0], one[:, 1, 1] = np.where(placed.mirrored, -scale, scale), scale
        one[:, 0, 2], one[:, 1, 2] = placed.left + np.where(placed.mirrored, placed.side, 0), placed.top
    source = np.stack([placed.source for placed, _ in tiles])
    window = np.stack([window for _, window in tiles])
    found = (matrix.astype(np.float32), source, window.astype(np.float32))
    return Transform(*(torch.from_numpy(part).to(device) for part in found))


def _drawn(x: torch.Tensor, tiles: _Tiles) -> torch.Tensor:
    """Draw views (batch, size, size, 3), uint8; what no picture covers is grey."""
    out = torch.full_like(x, GREY)
    for placed, window in tiles:
        columns = zip(placed.source, placed.side, placed.left, placed.top, placed.mirrored, window, strict=True)
        for view, (source, side, left, top, mirrored, (x1, y1, x2, y2)) in zip(out, columns, strict=True):
            # Channels come last in memory, for which torch has a fast uint8 path; with antialias it is exact bilinear.
            picture = x[source].permute(2, 0, 1)[None]
            scaled = torch.nn.functional.interpolate(picture, (side, side), mode="bilinear", antialias=True)[0]
            scaled = (scaled.flip(2) if mirrored else scaled).permute(1, 2, 0)
            x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, left + side), min(y2, top + side)
            view[y1:y2, x1:x2] = scaled[y1 - top : y2 - top, x1 - left : x2 - left]
    return out


def _mapped(boxes: torch.Tensor, matrix: torch.Tensor, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the box about the four mapped corners of each box, cut to its window, and whether enough is left."""
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].view(-1, 4, 2)
    moved = (matrix[:, None, :, :2] * corners[:, :, None, :]).sum(-1) + matrix[:, None, :, 2]
    whole = torch.cat([moved.amin(1), moved.amax(1)], dim=1)
    low, high = window[:, :2].repeat(1, 2), window[:, 2:].repeat(1, 2)
    inside = torch.minimum(torch.maximum(whole, low), high)
    sides, all_sides = inside[:, 2:] - inside[:, :2], whole[:, 2:] - whole[:, :2]
    kept = (sides.prod(1) >= MIN_VISIBLE * all_sides.prod(1)) & (sides >= MIN_SIDE).all(1)
    return inside, kept


def _colours(x: torch.Tensor, draw: NDArray[np.uint64]) -> torch.Tensor:
    """Change brightness, contrast and saturation by 0.6 to 1.4, hue by up to 18 degrees, a fifth to grey; x in 0..255.

    All of these are linear in the pixel, so one matrix a picture does them; contrast turns about middle grey.
    """
    brightness, contrast, saturation = (between(draw[row], 0.6, 1.4) for row in range(3))
    angle = np.deg2rad(between(draw[3], -18, 18))
    saturation = np.where(between(draw[4], 0, 1) < GREYED, 0.0, saturation)
    light = np.tile([0.299, 0.587, 0.114], (3, 1))
    # Hue turns about the grey axis (Rodrigues), which leaves grey as it is.
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    turn = cosine * np.eye(3) + sine * cross + (1 - cosine) / 3
    mixed = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * light
    matrix = (brightness * contrast / 255)[:, None, None] * (mixed @ turn)
    shift = np.repeat(0.5 * (1 - contrast)[:, None, None], 3, axis=1)
    weight, bias = (torch.from_numpy(part.astype(np.float32)).to(x.device) for part in (matrix, shift))
    return torch.baddbmm(bias, weight, x.flatten(2)).clamp_(0, 1).view_as(x)


def _blur(x: torch.Tensor, draw: NDArray[np.uint64]) -> torch.Tensor:
    """Blur half of the pictures by a Gaussian of 0.1 to 1.5 pixels."""
    chosen = np.flatnonzero(between(draw[0], 0, 1) < BLURRED)
    if not len(chosen):
        return x
    sigma = between(draw[1], *BLUR)[chosen]
    weight = np.exp(-(np.arange(_RADIUS + 1) ** 2) / (2 * sigma[:, None] ** 2))
    weight /= 2 * weight.sum(1, keepdims=True) - weight[:, :1]
    kernel = torch.from_numpy(weight.T.astype(np.float32)).to(x.device)[..., None, None, None]
    # Sums of shifted pictures: a convolution with one kernel a picture takes five times as long. One picture at a time
    # stays in the cache of a CPU.
    if x.device.type == "cpu":
        for i, one in zip(chosen, kernel.unbind(1), strict=True):
            x[i : i + 1] = _smoothed(_smoothed(x[i : i + 1], one, 2), one, 3)
    else:
        rows = torch.from_numpy(chosen).to(x.device)
        x[rows] = _smoothed(_smoothed(x[rows], kernel, 2), kernel, 3)
    return x


def _smoothed(x: torch.Tensor, kernel: torch.Tensor, axis: int) -> torch.Tensor:
    """Blur along one axis by symmetric kernels (radius + 1, [batch,] 1, 1, 1), from the middle outwards."""
    edge = [0, 0, _RADIUS, _RADIUS] if axis == 2 else [_RADIUS, _RADIUS, 0, 0]
    padded, side = torch.nn.functional.pad(x, edge, mode="reflect"), x.shape[axis]
    out, pair = x * kernel[0], torch.empty_like(x)
    for step in range(1, _RADIUS + 1):
        torch.add(padded.narrow(axis, _RADIUS - step, side), padded.narrow(axis, _RADIUS + step, side), out=pair)
        out.addcmul_(pair, kernel[step])
    return out


def _cutout(x: torch.Tensor, draw: NDArray[np.uint64]) -> torch.Tensor:
    """Cover squares of up to a quarter of the side with grey."""
    size = x.shape[-1]
    for row in range(0, 3 * CUTOUTS, 3):
        side = below(draw[row], int(size * CUTOUT_SIDE) + 1)
        left, top = (below(draw[row + axis], size) - side // 2 for axis in (1, 2))
        for view, *corner, one in zip(x, left, top, side, strict=True):
            rows, columns = (slice(max(start, 0), start + one) for start in corner[::-1])
            view[:, rows, columns] = GREY / 255
    return x
