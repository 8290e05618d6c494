"""Real photographs of road signs, written as COCO, YOLO and VOC folders and read back."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import write
from numpy.typing import NDArray
from PIL import Image

from fedssl.data.base import SOURCES, Samples

REAL = Path(os.environ.get("FEDSSL_TEST_DATA", Path(__file__).parents[5] / "shared" / "data")) / "roadsign.npz"
COUNTS = {"train": 24, "val": 8, "test": 8}
SIZE = 128

Arrays = dict[str, NDArray[Any]]


def convert(arrays: Arrays, root: Path) -> dict[str, NDArray[np.int64]]:
    """Write some photographs of each part in the three layouts; return their numbers."""
    names = arrays["class_names"].tolist()
    parts = [(part, np.flatnonzero(arrays["split"] == i)) for i, part in enumerate(COUNTS)]
    used = {part: mine[:: len(mine) // COUNTS[part]] for part, mine in parts}
    for part, numbers in used.items():
        images, boxes = [], []
        for i in numbers.tolist():
            stem, (height, width) = f"{part}{i:04d}", arrays["sizes"][i].tolist()
            data = arrays["bytes"][arrays["offsets"][i] : arrays["offsets"][i + 1]].tobytes()
            for folder in (f"coco/{part}2017", f"yolo/images/{part}", "voc/JPEGImages"):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.open(io.BytesIO(data)).convert("RGB").save(root / folder / f"{stem}.png")
            mine = np.flatnonzero(arrays["box_image"] == i)
            labels, xyxy = arrays["box_labels"][mine].tolist(), arrays["boxes"][mine].tolist()
            images.append({"id": i, "file_name": f"{stem}.png", "width": width, "height": height})
            lines, objects = "", ""
            for label, (x1, y1, x2, y2) in zip(labels, xyxy, strict=True):
                boxes.append({"image_id": i, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]})
                centre, sides = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height), ((x2 - x1) / width, (y2 - y1) / height)
                lines += f"{label} {' '.join(f'{value:.6f}' for value in (*centre, *sides))}\n"
                corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
                objects += f"<object><name>{names[label]}</name><bndbox>{corners}</bndbox></object>"
            size = f"<size><width>{width}</width><height>{height}</height></size>"
            write(root / "yolo" / "labels" / part / f"{stem}.txt", lines)
            write(root / "voc" / "Annotations" / f"{stem}.xml", f"<annotation>{size}{objects}</annotation>")
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
        told = {"images": images, "annotations": boxes, "categories": categories}
        write(root / "coco" / "annotations" / f"instances_{part}2017.json", json.dumps(told))
        write(root / "voc/ImageSets/Main" / f"{part}.txt", "".join(f"{part}{i:04d}\n" for i in numbers))
    write(root / "yolo" / "data.yaml", f"train: images/train\nval: images/val\ntest: images/test\nnames: {names}\n")
    return used


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="the real roadsign.npz is not here")
def test_real_photographs_have_the_same_boxes_in_each_format(tmp_path: Path) -> None:
    with np.load(REAL, allow_pickle=False) as content:
        arrays: Arrays = {name: content[name] for name in content.files}
    used = convert(arrays, tmp_path)
    names = arrays["class_names"].tolist()
    for name in ("coco", "yolo", "voc"):
        source = SOURCES.create({"name": name, "path": str(tmp_path / name), "size": SIZE, "classes": names})
        data = source.read()
        assert data.warnings == ()
        for samples, part in ((data.train, "train"), (data.test, "test")):
            _check(samples, arrays, used[part])


def _check(samples: Samples, arrays: Arrays, numbers: NDArray[np.int64]) -> None:
    assert len(samples) == len(numbers)
    for place, i in enumerate(numbers):
        height, width = arrays["sizes"][i]
        xyxy, labels = samples.boxes_of(place)
        mine = arrays["box_image"] == i
        assert labels.tolist() == arrays["box_labels"][mine].tolist()
        scale = SIZE / max(height, width)
        offset = [(SIZE - width * scale) / 2, (SIZE - height * scale) / 2] * 2
        # Sides and bars are whole pixels.
        np.testing.assert_allclose(xyxy, arrays["boxes"][mine] * scale + offset, atol=1.01)
