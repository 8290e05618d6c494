"""The documents' scripts that make the tables of Cityscapes and SODA10M, on files laid out like theirs."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedssl.data.sources.coco import Coco
from simulations.compose import compose_experiment

PAGE = Path(__file__).parents[4] / "docs" / "data_detection.md"
WIDTH, HEIGHT = 64, 32


def run_script(heading: str, iid: bool = False) -> None:
    part = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    Path("make_table.py").write_text(code.replace("IID = False", f"IID = {iid}"), encoding="utf-8")
    runpy.run_path("make_table.py")


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(file)


def source(folder: Path, preset: str) -> Coco:
    chosen = compose_experiment([f"experiment={preset}", f"data.path={folder}"])
    options = {name: value for name, value in chosen.data.items() if name not in ("name", "size")}
    return Coco(**options, size=32)


def test_cityscapes_is_read_from_its_polygons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    things = [
        {"label": "car", "polygon": [[4, 8], [20, 8], [12, 28]]},
        {"label": "traffic sign", "polygon": [[40, 2], [44, 2], [44, 6], [40, 6]]},
        {"label": "sky", "polygon": [[0, 0], [64, 0], [64, 4]]},
    ]
    for part, city, held in (("train", "aachen", things), ("val", "ulm", []), ("val", "bonn", things[:1])):
        picture(tmp_path / f"leftImg8bit/{part}/{city}/{city}_0_leftImg8bit.png")
        place = tmp_path / f"gtFine/{part}/{city}/{city}_0_gtFine_polygons.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({"imgWidth": WIDTH, "imgHeight": HEIGHT, "objects": held}))
    for i in range(6):
        picture(tmp_path / f"leftImg8bit/train_extra/city{i}/city{i}_0_leftImg8bit.png")
    run_script("Cityscapes")
    data = source(tmp_path, "cityscapes").read()
    assert data.class_names == ("person", "car", "bus", "truck", "traffic sign")
    boxes, classes = data.train.boxes_of(0)
    # A square of 32 pixels holds the picture at half its size, 8 pixels down.
    assert boxes.tolist() == [[2, 12, 10, 22], [20, 9, 22, 11]]
    assert classes.tolist() == [1, 4]
    assert data.train.annotated.tolist() == [True] + [False] * 6
    assert np.bincount(data.train.group).tolist() == [1, 2, 2, 2]
    assert np.diff(data.test.box_offsets).tolist() == [1, 0]


@pytest.mark.parametrize("iid", [False, True])
def test_soda10m_is_read_by_its_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iid: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labeled" / "annotations").mkdir(parents=True)
    for part, number in (("train", 24), ("val", 2)):
        images = []
        for i in range(number):
            name, weather = f"HT_{part.upper()}_{i:06}_SH_000.jpg", ("Clear", "Rainy")[i % 2]
            picture(tmp_path / "labeled" / part / name)
            images.append({"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT, "weather": weather})
        boxes = [{"id": i, "image_id": i, "category_id": 3, "bbox": [8, 8, 16, 8]} for i in range(number)]
        categories = [{"id": 1, "name": "Pedestrian"}, {"id": 3, "name": "Car"}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (tmp_path / "labeled" / "annotations" / f"instance_{part}.json").write_text(json.dumps(content))
    for i in range(30):
        picture(tmp_path / "unlabel" / "image_0" / f"HT_UNLABEL_{i:06}.jpg")
    run_script("SODA10M", iid)
    data = source(tmp_path, "soda10m").read()
    assert data.class_names == ("Pedestrian", "Car")
    assert data.domain_names == ("Clear", "Rainy")
    assert data.test.boxes.tolist() == [[4, 12, 12, 16]] * 2
    held = np.bincount(data.train.group, minlength=4)
    assert (held > 0).all()
    assert (held[0] == 24) != iid
    assert data.train.annotated.sum() == 24
    assert len(data.train) == (24 if iid else 54)
