"""Boxes that cannot be: left out and counted, or refused with what they look like, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import HEIGHT, WIDTH, scenes, voc_text, write

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES, Dataset
from fedssl.data.cache import open_dataset

Numbers = list[float]


def read(folder: Path, **options: object) -> Dataset:
    return SOURCES.create({"name": folder.name, "path": str(folder), "size": 96, **options}).read()


def coco_with(folder: Path, change: Callable[[dict], None], part: str = "train") -> Path:
    """Write COCO's layout whose JSON of a part is changed."""
    layouts.coco(folder)
    place = folder / "annotations" / f"instances_{part}2017.json"
    content = json.loads(place.read_text())
    change(content)
    place.write_text(json.dumps(content))
    return folder


def first_box(folder: Path, numbers: Numbers) -> Path:
    """Write a layout whose first training box has these numbers, as its format has them."""
    if folder.name == "coco":
        return coco_with(folder, lambda content: content["annotations"][0].update(bbox=numbers))
    getattr(layouts, folder.name)(folder)
    if folder.name == "yolo":
        write(folder / "labels/train/train00.txt", "0 " + " ".join(map(str, numbers)))
    else:
        names = zip(("xmin", "ymin", "xmax", "ymax"), numbers, strict=True)
        box = "".join(f"<{name}>{value}</{name}>" for name, value in names)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        text = f"<annotation>{size}<object><name>bus</name><bndbox>{box}</bndbox></object></annotation>"
        write(folder / "Annotations" / "train00.xml", text)
    return folder


PLACES = {
    "coco": r"instances_train2017\.json: annotation 100 \(train2017/train00\.png\)",
    "yolo": r"labels/train/train00\.txt: line 1",
    "voc": r"Annotations/train00\.xml: object 1",
}


@pytest.mark.parametrize(
    ("name", "numbers", "reason"),
    [
        ("coco", [40, 30, -20, -20], "without a positive width and height"),
        ("coco", [40, 30, 0, 9], "without a positive width and height"),
        ("coco", [200, 30, 9, 9], "outside the image"),
        ("coco", [-30, 10, 20, 20], "outside the image"),
        ("yolo", [0.5, 0.5, 0, 0.1], "without a positive width and height"),
        ("voc", [40, 30, 20, 10], "without a positive width and height"),
        ("voc", [40, 30, 40, 50], "without a positive width and height"),
        ("voc", [96, 30, 120, 50], "outside the image"),
    ],
)
def test_a_box_that_cannot_be_is_left_out_and_counted(name: str, numbers: Numbers, reason: str, tmp_path: Path) -> None:
    data = read(first_box(tmp_path / name, numbers))
    assert len(data.train.boxes) == 10
    (told,) = [line for line in data.warnings if line.startswith("boxes left out")]
    place = PLACES[name].replace("\\", "")
    assert told.startswith(f"boxes left out: 1, of which 1 {reason} (first: {place})")
    image = {"coco": "train2017", "yolo": "images/train", "voc": "JPEGImages"}[name]
    assert f"count as images without objects: 1 (first: {image}/train00.png)" in told


@pytest.mark.parametrize("name", ["coco", "voc"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e39"])
def test_boxes_of_numbers_that_are_none_are_refused(name: str, value: str, tmp_path: Path) -> None:
    folder = first_box(tmp_path / name, [10, 10, float(value), 30])
    with pytest.raises(ConfigError, match=rf"(boxes are of finite numbers, which {PLACES[name]} is not|no number)"):
        read(folder)


def test_boxes_are_cut_to_the_image_and_counted_if_it_is_more_than_rounding(tmp_path: Path) -> None:
    data = read(first_box(tmp_path / "voc", [-2, 10, 98, 50]))
    assert (data.warnings, data.train.boxes[0].tolist()) == ((), [0, 26, 96, 66])
    data = read(first_box(tmp_path / "more" / "voc", [-9, 10, 98, 50]))
    assert data.train.boxes[0].tolist() == [0, 26, 96, 66]
    assert data.warnings == (
        "boxes cut because they reach beyond their image: 1 (first: Annotations/train00.xml: object 1)",
    )


def test_a_box_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    folder = coco_with(tmp_path / "coco", lambda content: content["annotations"].append(content["annotations"][3]))
    data = read(folder)
    assert len(data.train.boxes) == 11
    assert data.warnings == (
        "boxes left out: 1, of which 1 annotated twice "
        "(first: instances_train2017.json: annotation 103 (train2017/train03.png))",
        "annotation ids that occur twice: 1 (first: instances_train2017.json: annotation 103)",
    )


def test_crowds_and_ignored_objects_are_left_out_and_counted(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["ignore"] = True

    data = read(coco_with(tmp_path / "coco", change))
    assert len(data.train.boxes) == 9
    assert data.warnings == (
        "boxes left out: 2, of which 2 marked as crowd, ignored or difficult (first: instances_train2017.json: "
        "train2017/train00.png); images whose boxes are all left out, which count as images without objects: 2 "
        "(first: train2017/train00.png)",
    )
    voc = layouts.voc(tmp_path / "voc")
    place = voc / "Annotations" / "train00.xml"
    place.write_text(place.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    assert read(voc).warnings[0].startswith("boxes left out: 1, of which 1 marked as crowd, ignored or difficult")
    assert read(voc, difficult=True).warnings == ()
    prints = {
        SOURCES.create({"name": "voc", "path": str(voc), "difficult": one}).fingerprint() for one in (0 > 1, 1 > 0)
    }
    assert len(prints) == 2


def test_boxes_of_classes_that_do_not_count_are_not_counted(tmp_path: Path) -> None:
    folder = first_box(tmp_path / "coco", [40, 30, 0, 0])
    assert read(folder, classes=["car"]).warnings == ()


def test_polygons_without_a_box_get_the_box_around_them(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        for one in content["annotations"]:
            x, y, w, h = one.pop("bbox")
            one["segmentation"] = [[x, y, x + w, y, x + w, y + h / 2], [x, y, x + 1, y + h, x + 2, y]]

    changed = read(coco_with(tmp_path / "coco", change))
    assert np.array_equal(changed.train.boxes, read(layouts.coco(tmp_path / "as_is" / "coco")).train.boxes)
    folder = coco_with(tmp_path / "rle" / "coco", lambda content: content["annotations"][2].pop("bbox"))
    with pytest.raises(ConfigError, match=r"instances_train2017\.json: annotation 102 has no bbox\)$"):
        read(folder)


def corners(content: dict) -> None:
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["bbox"] = [x, y, x + w, y + h]


def shares(content: dict) -> None:
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def far(content: dict) -> None:
    for one in content["annotations"]:
        one["bbox"] = [4 * value for value in one["bbox"]]


@pytest.mark.parametrize(
    ("change", "looks"),
    [
        (corners, "they look like x1, y1, x2, y2"),
        (shares, r"they look like shares of the sides, 0\.\.1, and must be pixels"),
        (far, "most are not"),
    ],
)
def test_coco_boxes_in_another_form_are_refused_with_what_they_look_like(
    change: Callable[[dict], None], looks: str, tmp_path: Path
) -> None:
    told = rf"boxes are left, top, width, height of .*: {looks}.* \({PLACES['coco']} is the first of 11"
    with pytest.raises(ConfigError, match=told):
        read(coco_with(tmp_path / "coco", change))


@pytest.mark.parametrize(
    ("form", "looks"),
    [
        (lambda x1, y1, x2, y2: (x1, y1, x2, y2), "x1, y1, x2, y2"),
        (lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1), "left, top, width, height"),
    ],
)
def test_yolo_boxes_in_another_form_are_refused(form: Callable[..., Numbers], looks: str, tmp_path: Path) -> None:
    folder = layouts.yolo(tmp_path / "yolo")
    for i, one in enumerate(scenes("train", 11)):
        # Near the upper left corner, where as many forms as possible stay inside.
        x, y = 1 + i, 1 + i // 2
        numbers = form(x / WIDTH, y / HEIGHT, (x + 20) / WIDTH, (y + 15) / HEIGHT)
        write(folder / "labels" / "train" / f"{one.name}.txt", "0 " + " ".join(map(str, numbers)))
    with pytest.raises(
        ConfigError, match=rf"centre x, centre y, .*they look like .*{looks}.* \({PLACES['yolo']} is the"
    ):
        read(folder)


def test_voc_boxes_in_another_form_are_refused(tmp_path: Path) -> None:
    folder = layouts.voc(tmp_path / "voc")
    for one in scenes("train", 12):
        if one.box:
            x1, y1, x2, y2 = one.box
            changed = layouts.Scene(one.name, (x1, y1, x2 - x1, y2 - y1), one.label)
            write(folder / "Annotations" / f"{one.name}.xml", voc_text(changed))
    with pytest.raises(ConfigError, match=r"boxes are x1, y1, x2, y2 .*they look like left, top, width, height"):
        read(folder)


def test_a_few_boxes_that_cannot_be_refuse_nothing(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        for one in content["annotations"][:2]:
            one["bbox"] = [300, 300, 5, 5]

    assert len(read(coco_with(tmp_path / "coco", change)).train.boxes) == 9


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2; numbers begin with 0"),
        ("9 0.5 0.5 0.1 0.1", "class 9"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("bus 0.5 0.5 0.1 0.1", "not numbers: 'bus 0.5 0.5 0.1 0.1'"),
        ("0 40 30 20 10", "40; are these pixels?"),
        ("0 nan 0.5 0.1 0.1", "nan"),
        ("0 0.5 0.5 0.1", "3 numbers after the class"),
    ],
)
def test_a_line_of_yolo_that_is_wrong_is_named_with_the_reason(line: str, reason: str, tmp_path: Path) -> None:
    folder = layouts.yolo(tmp_path / "yolo")
    write(folder / "labels/train/train00.txt", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ConfigError) as error:
        read(folder)
    assert str(error.value).endswith(f"in shares of the sides, 0..1, in line 2 ({reason})")


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    def change(content: dict) -> None:
        content["categories"].append({"id": 0, "name": "car", "supercategory": "none"})
        content["annotations"][1]["category_id"] = 0

    folder = coco_with(tmp_path / "coco", change)
    data = read(folder)
    assert data.class_names == ("car", "bus")
    assert data.train.box_class.tolist() == [1, 0] * 5 + [1]
    assert data.warnings == ("categories of the same name, taken as one: 1 (first: car, ids 0 and 2)",)


def test_a_class_without_a_training_box_is_told(tmp_path: Path) -> None:
    folder = coco_with(tmp_path / "coco", lambda content: content["categories"].append({"id": 9, "name": "root"}))
    assert read(folder).warnings == ("classes without a box in the training images: 1 (first: root)",)
    assert read(folder, classes=["bus", "car"]).warnings == ()


def test_warnings_come_back_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SOURCES.create({"name": "coco", "path": str(first_box(tmp_path / "coco", [40, 30, 0, 0])), "size": 96})
    first = open_dataset(source, tmp_path / "cache")
    monkeypatch.setattr(type(source), "read", lambda _: pytest.fail("decoded again"))
    assert open_dataset(source, tmp_path / "cache").warnings == first.warnings != ()
