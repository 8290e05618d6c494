"""Folders of images with boxes as other tools write them: COCO, YOLO and VOC, without a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("bus", "car")
WIDTH, HEIGHT = 96, 64
COUNTS = {"train": 12, "val": 4, "test": 5}


@dataclass(frozen=True)
class Scene:
    """An image with one box, or none: its name, box x1 y1 x2 y2 and class."""

    name: str
    box: tuple[int, int, int, int] | None
    label: int


def scenes(part: str, count: int) -> list[Scene]:
    """Return scenes of a part, half buses and half cars; the last has no box."""
    rng = np.random.default_rng(sum(map(ord, part)))
    made = []
    for i in range(count):
        x, y = int(rng.integers(5, 60)), int(rng.integers(5, 35))
        box = None if i == count - 1 else (x, y, x + 30, y + 25)
        made.append(Scene(f"{part}{i:02d}", box, i % 2))
    return made


def draw(scene: Scene, file: Path) -> None:
    """Write a scene's image: a red car or a green bus on grey."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    if scene.box:
        ImageDraw.Draw(image).rectangle(scene.box, fill=(200, 30, 30) if scene.label else (30, 200, 30))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def coco_json(scenes: Sequence[Scene], prefix: str = "") -> str:
    """Return the JSON of scenes whose file_name begins with `prefix`."""
    images = [
        {"id": i, "file_name": f"{prefix}{one.name}.png", "width": WIDTH, "height": HEIGHT}
        for i, one in enumerate(scenes)
    ]
    boxes = [
        {"id": 100 + i, "image_id": i, "category_id": 1 + one.label, "bbox": _xywh(one.box), "iscrowd": 0}
        for i, one in enumerate(scenes)
        if one.box
    ]
    categories = [{"id": 1 + i, "name": name} for i, name in enumerate(NAMES)]
    return json.dumps({"images": images, "annotations": boxes, "categories": categories})


def _xywh(box: tuple[int, int, int, int]) -> list[int]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def yolo_text(scene: Scene) -> str:
    """Return a scene's line of class and shares of the sides."""
    if scene.box is None:
        return ""
    x1, y1, x2, y2 = scene.box
    shares = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
    return f"{scene.label} {' '.join(f'{share:.6f}' for share in shares)}\n"


def voc_text(scene: Scene) -> str:
    """Return a scene's XML."""
    text = ""
    if scene.box:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), scene.box, strict=True)
        sides = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
        text = f"<object><name>{NAMES[scene.label]}</name><bndbox>{sides}</bndbox></object>"
    return f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{text}</annotation>"


def write(place: Path, text: str) -> None:
    """Write a file and its folders."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


def coco(root: Path, parts: Sequence[str] = ("train", "val", "test")) -> Path:
    """Write COCO's own layout: train2017/, annotations/instances_train2017.json, ..., and captions beside them."""
    for part in parts:
        made = scenes(part, COUNTS[part])
        for one in made:
            draw(one, root / f"{part}2017" / f"{one.name}.png")
        write(root / "annotations" / f"instances_{part}2017.json", coco_json(made))
        write(root / "annotations" / f"captions_{part}2017.json", '{"images": [], "annotations": []}')
    return root


def coco_roboflow(root: Path) -> Path:
    """Write Roboflow's layout: train/_annotations.coco.json beside the images, and the like."""
    for part in ("train", "val", "test"):
        folder = root / {"val": "valid"}.get(part, part)
        made = scenes(part, COUNTS[part])
        for one in made:
            draw(one, folder / f"{one.name}.png")
        write(folder / "_annotations.coco.json", coco_json(made))
    return root


def yolo(root: Path) -> Path:
    """Write Ultralytics' layout: images/train, labels/train, ..., data.yaml; images without boxes have no text file."""
    for part, count in COUNTS.items():
        for one in scenes(part, count):
            draw(one, root / "images" / part / f"{one.name}.png")
            if one.box:
                write(root / "labels" / part / f"{one.name}.txt", yolo_text(one))
    keys = "path: ../datasets/mine\ntrain: images/train\nval: images/val\ntest: images/test\n"
    write(root / "data.yaml", f"{keys}names:\n  0: bus\n  1: car\n")
    return root


def yolo_roboflow(root: Path) -> Path:
    """Write Roboflow's layout: train/images, train/labels, valid/..., and a data.yaml whose paths begin with ../."""
    for part, count in COUNTS.items():
        folder = root / {"val": "valid"}.get(part, part)
        for one in scenes(part, count):
            draw(one, folder / "images" / f"{one.name}.png")
            write(folder / "labels" / f"{one.name}.txt", yolo_text(one))
    keys = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    write(root / "data.yaml", f"{keys}nc: 2\nnames: ['bus', 'car']\n")
    return root


def voc(root: Path) -> Path:
    """Write PASCAL VOC's layout: JPEGImages, Annotations, ImageSets/Main; another list is of a class."""
    for part, count in COUNTS.items():
        made = scenes(part, count)
        for one in made:
            draw(one, root / "JPEGImages" / f"{one.name}.png")
            write(root / "Annotations" / f"{one.name}.xml", voc_text(one))
        write(root / "ImageSets" / "Main" / f"{part}.txt", "".join(f"{one.name}\n" for one in made))
    write(root / "ImageSets" / "Main" / "car_train.txt", "train00 -1\n")
    return root


def voc_roboflow(root: Path) -> Path:
    """Write Roboflow's layout: train/a.png beside train/a.xml, and the like."""
    for part, count in COUNTS.items():
        folder = root / {"val": "valid"}.get(part, part)
        for one in scenes(part, count):
            draw(one, folder / f"{one.name}.png")
            write(folder / f"{one.name}.xml", voc_text(one))
    return root
