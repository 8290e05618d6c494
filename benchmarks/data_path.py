"""G8, the data path: weak and strong views, images a second against Pillow and torchvision v2.

Run: python benchmarks/data_path.py [--repeats 5] [--json]. One thread; the systems take turns, medians and
ranges of the ratios are printed. All sides start from uint8 arrays and end as uint8 images in one
array; the Pillow and torchvision sides do the same crop, flip, two operations and cutout. Views of scenes, whose boxes
move with them, are set beside torchvision alone: flip, scale and shift, colours, grey, blur, two cutouts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torchvision import tv_tensors  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

from fedssl.data.views import augment, box_augment

SHAPES = ((28, 28, 1), (32, 32, 3))
BATCHES = (64, 448)
RIVALS = {"pillow": "Pillow", "torchvision": "torchvision v2"}
GOALS = {"weak": (4.0, 6.0), "strong": (3.0, 5.0)}
"""How many times faster a view must be: pass and aim."""
SCENES, SIDE, SCENE_GOALS = 8, 224, (3.0, 5.0)
Images = NDArray[np.uint8]


def affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f))


def factor(generator: random.Random) -> float:
    return generator.uniform(0.05, 0.95)


def signed(generator: random.Random) -> float:
    return generator.uniform(-0.3, 0.3)


PILLOW_OPERATIONS: list[Callable[[Image.Image, random.Random], Image.Image]] = [
    lambda i, _: i,
    lambda i, _: ImageOps.autocontrast(i),
    lambda i, _: ImageOps.equalize(i),
    lambda i, g: ImageEnhance.Brightness(i).enhance(factor(g)),
    lambda i, g: ImageEnhance.Contrast(i).enhance(factor(g)),
    lambda i, g: ImageOps.posterize(i, g.randint(4, 8)),
    lambda i, g: ImageOps.solarize(i, g.randint(0, 256)),
    lambda i, g: ImageEnhance.Sharpness(i).enhance(factor(g)),
    lambda i, g: i.rotate(100 * signed(g)),
    lambda i, g: affine(i, 1, signed(g), 0, 0, 1, 0),
    lambda i, g: affine(i, 1, 0, 0, signed(g), 1, 0),
    lambda i, g: affine(i, 1, 0, signed(g) * i.width, 0, 1, 0),
    lambda i, g: affine(i, 1, 0, 0, 0, 1, signed(g) * i.height),
    lambda i, g: ImageEnhance.Color(i).enhance(factor(g)),
]


def pillow_weak(padded: Image.Image, size: int, pad: int, g: random.Random) -> Image.Image:
    left, top = g.randint(0, 2 * pad), g.randint(0, 2 * pad)
    image = padded.crop((left, top, left + size, top + size))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if g.random() < 0.5 else image


def pillow_strong(image: Image.Image, g: random.Random) -> Image.Image:
    count = 14 if image.mode == "RGB" else 13
    for _ in range(2):
        image = PILLOW_OPERATIONS[g.randrange(count)](image, g)
    side, x, y = g.randint(0, image.width // 2), g.randrange(image.width), g.randrange(image.height)
    box = (x - side // 2, y - side // 2, x + side // 2, y + side // 2)
    ImageDraw.Draw(image).rectangle(box, fill=(127,) * 3 if image.mode == "RGB" else 127)
    return image


def pillow(x: Images, *, strong: bool, seed: int) -> Images:
    g, size, out = random.Random(seed), x.shape[1], np.empty_like(x)
    pad = size // 8
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    for row, array in enumerate(padded):
        whole = Image.fromarray(array if array.shape[2] == 3 else array[..., 0])
        image = pillow_weak(whole, size, pad, g)
        image = pillow_strong(image, g) if strong else image
        out[row] = np.asarray(image).reshape(x.shape[1:])
    return out


def torchvision(x: Images, *, strong: bool, seed: int) -> torch.Tensor:
    del seed
    size = x.shape[1]
    steps = [
        v2.RandomCrop(size, padding=size // 8, padding_mode="reflect"),
        v2.RandomHorizontalFlip(),
    ]
    if strong:
        steps += [
            v2.RandAugment(num_ops=2),
            v2.RandomErasing(p=1.0, scale=(0.0025, 0.25), value=127),
        ]
    change = v2.Compose(steps)
    images = torch.from_numpy(x).permute(0, 3, 1, 2)
    return torch.stack([change(image) for image in images])


def ours(x: Images, *, strong: bool, seed: int) -> torch.Tensor:
    view = augment.strong if strong else augment.weak
    return view(torch.from_numpy(x), np.arange(len(x)), seed, flip=True)


def seconds_per_image(view: Callable[[int], object], batch: int, seed: int, least: float = 0.1) -> float:
    passes, start = 0, time.perf_counter()
    while passes == 0 or time.perf_counter() - start < least:
        view(seed + passes)
        passes += 1
    return (time.perf_counter() - start) / passes / batch


def microseconds(shape: tuple[int, int, int], batch: int, repeats: int, *, strong: bool) -> dict[str, list[float]]:
    """Give each system's microseconds an image, a value a repeat."""
    x = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    times: dict[str, list[float]] = {"ours": [], "pillow": [], "torchvision": []}
    for repeat in range(repeats + 1):  # the first warms up
        for name, system in (("ours", ours), ("pillow", pillow), ("torchvision", torchvision)):
            spent = seconds_per_image(lambda seed, of=system: of(x, strong=strong, seed=seed), batch, 1000 * repeat)
            if repeat:
                times[name].append(spent * 1e6)
    return times


def cells(view: str, shape: tuple[int, int, int], batch: int, times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Give a comparison a rival: what, goals, and (ours, theirs) of each repeat."""
    passes, aim = GOALS[view]
    what = f"us an image, {view} views {'x'.join(map(str, shape))}, batch {batch}"
    return [
        {
            "what": f"{what}, against {title}",
            "passes": passes,
            "aim": aim,
            "rows": list(zip(times["ours"], times[name], strict=True)),
        }
        for name, title in RIVALS.items()
    ]


def row(view: str, shape: tuple[int, int, int], batch: int, times: dict[str, list[float]]) -> str:
    """Give a row of the printed table."""
    shown = [f"{statistics.median(times['ours']):.1f}"]
    for name in RIVALS:
        ratios = [other / own for other, own in zip(times[name], times["ours"], strict=True)]
        shown.append(f"{statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f})")
    return f"| {view} | {'x'.join(map(str, shape))} | {batch} | " + " | ".join(shown) + " |"


def our_scenes(x: Images, boxes: torch.Tensor, seed: int) -> torch.Tensor:
    views, transform = box_augment.strong(torch.from_numpy(x), np.arange(len(x)), seed, flip=True)
    box_augment.place_boxes(boxes, torch.arange(len(x)), transform)
    return views


def torchvision_scenes(x: Images, boxes: torch.Tensor, seed: int) -> torch.Tensor:
    del seed
    change = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(0, translate=(0.25, 0.25), scale=box_augment.SCALE, fill=114),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
            v2.RandomGrayscale(box_augment.GREYED),
            v2.RandomApply([v2.GaussianBlur(7, box_augment.BLUR)], box_augment.BLURRED),
            *[v2.RandomErasing(p=1.0, scale=(0.01, 0.06)) for _ in range(box_augment.CUTOUTS)],
            v2.SanitizeBoundingBoxes(min_size=box_augment.MIN_SIDE, labels_getter=None),
        ]
    )
    views = []
    for image, box in zip(torch.from_numpy(x).permute(0, 3, 1, 2), boxes, strict=True):
        placed = tv_tensors.BoundingBoxes(box[None], format="XYXY", canvas_size=(SIDE, SIDE))
        views.append(change(tv_tensors.Image(image), placed)[0])
    return torch.stack(views)


def scene_cell(repeats: int) -> dict[str, Any]:
    """Compare strong views of scenes with one box each, a value a repeat."""
    x = np.random.default_rng(0).integers(0, 256, (SCENES, SIDE, SIDE, 3), dtype=np.uint8)
    boxes = torch.tensor([[60.0, 70.0, 130.0, 150.0]]).repeat(SCENES, 1)
    rows = []
    for repeat in range(repeats + 1):  # the first warms up
        pair = [
            1e6 * seconds_per_image(lambda seed, of=system: of(x, boxes, seed), SCENES, 1000 * repeat, 0.5)
            for system in (our_scenes, torchvision_scenes)
        ]
        rows += [pair] if repeat else []
    what = f"us an image, strong views of scenes {SIDE}x{SIDE}x3, batch {SCENES}, against torchvision v2"
    return {"what": what, "passes": SCENE_GOALS[0], "aim": SCENE_GOALS[1], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line for benchmarks/run.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.json:
        print("| view | shape | batch | ours, us an image | against Pillow | against torchvision v2 |")
        print("| --- | --- | --- | --- | --- | --- |")
    found = []
    for view, shape, batch in itertools.product(GOALS, SHAPES, BATCHES):
        times = microseconds(shape, batch, options.repeats, strong=view == "strong")
        found += cells(view, shape, batch, times)
        if not options.json:
            print(row(view, shape, batch, times), flush=True)
    found.append(scene_cell(options.repeats))
    if options.json:
        print(json.dumps({"cells": found}))
    else:
        times = found[-1]["rows"]
        ratios = [theirs / own for own, theirs in times]
        print(
            f"{found[-1]['what']}: {statistics.median(own for own, _ in times):.0f}, {statistics.median(ratios):.1f}x"
        )


if __name__ == "__main__":
    main()
