"""G8, the data path: weak and strong views, images a second against Pillow and torchvision v2.

Run: python benchmarks/data_path.py [--repeats 5]. One thread; the systems take turns, medians and
ranges of the ratios are printed. All sides start from uint8 arrays and end as uint8 images in one
array; the Pillow and torchvision sides do the same crop, flip, two operations and cutout.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torchvision.transforms import v2  # type: ignore[import-untyped]

from fedssl.data import augment

SHAPES = ((28, 28, 1), (32, 32, 3))
BATCHES = (64, 448)
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


def seconds_per_image(system: Callable[..., object], x: Images, seed: int, *, strong: bool) -> float:
    passes, start = 0, time.perf_counter()
    while passes == 0 or time.perf_counter() - start < 0.1:
        system(x, strong=strong, seed=seed + passes)
        passes += 1
    return (time.perf_counter() - start) / passes / len(x)


def row(shape: tuple[int, int, int], batch: int, repeats: int, *, strong: bool) -> str:
    x = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    times: dict[str, list[float]] = {"ours": [], "pillow": [], "torchvision": []}
    for repeat in range(repeats + 1):  # the first warms up
        for name, system in (("ours", ours), ("pillow", pillow), ("torchvision", torchvision)):
            spent = seconds_per_image(system, x, 1000 * repeat, strong=strong)
            if repeat:
                times[name].append(spent)
    cells = [f"{statistics.median(times['ours']) * 1e6:.1f}"]
    for name in ("pillow", "torchvision"):
        ratios = [other / own for other, own in zip(times[name], times["ours"], strict=True)]
        cells.append(f"{statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f})")
    view = "strong" if strong else "weak"
    return f"| {view} | {'x'.join(map(str, shape))} | {batch} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| view | shape | batch | ours, us an image | against Pillow | against torchvision v2 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for strong in (False, True):
        for shape in SHAPES:
            for batch in BATCHES:
                print(row(shape, batch, repeats, strong=strong), flush=True)


if __name__ == "__main__":
    main()
