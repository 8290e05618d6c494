"""Tests of fedssl.data.sources.coco and bdd100k."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from folders import TABLE, pictures
from PIL import Image

from fedssl.config import ConfigError
from fedssl.data.sources.bdd100k import Bdd100k
from fedssl.data.sources.coco import Coco


def coco_file(names: str, boxes: list[dict], categories: list[dict]) -> str:
    images = [{"id": 10 + i, "file_name": f"{name}.png"} for i, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": boxes, "categories": categories})


@pytest.fixture
def coco(tmp_path) -> Path:
    pictures(tmp_path)
    (tmp_path / "annotations").mkdir()
    categories = [{"id": 7, "name": "bus"}, {"id": 3, "name": "car"}]
    boxes = [
        {"image_id": 10, "category_id": 3, "bbox": [10, 5, 20, 10]},
        {"image_id": 10, "category_id": 7, "bbox": [0, 0, 4, 4], "iscrowd": 0},
        {"image_id": 11, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    (tmp_path / "annotations" / "train.json").write_text(coco_file("ab", boxes, categories))
    (tmp_path / "annotations" / "val.json").write_text(coco_file("ghi", [], categories))
    return tmp_path


def test_coco_boxes_are_found_by_file_name(coco):
    data = Coco(path=str(coco), size=40).read()
    assert data.class_names == ("car", "bus")
    xyxy, classes = data.train.boxes_of(0)
    assert xyxy.tolist() == [[10, 15, 30, 25], [0, 10, 4, 14]]
    assert classes.tolist() == [0, 1]
    assert np.diff(data.train.box_offsets).tolist() == [2, 0, 0, 0, 0, 0]
    assert len(data.test.boxes) == 0
    assert data.test.holds_boxes


def test_pictures_of_a_coco_file_without_annotations_are_unlabelled(coco):
    images = {"images": [{"id": 1, "file_name": "c.png"}], "categories": [{"id": 3, "name": "car"}]}
    (coco / "annotations" / "unlabelled.json").write_text(json.dumps(images))
    assert Coco(path=str(coco), size=40).read().train.annotated.tolist() == [True, True, *[False] * 4]
    (coco / "annotations" / "unlabelled.json").write_text(json.dumps({**images, "annotations": []}))
    assert Coco(path=str(coco), size=40).read().train.annotated.tolist() == [True, True, True, *[False] * 3]


def test_coco_annotations_of_another_picture_are_refused(coco):
    place = coco / "annotations" / "train.json"
    content = json.loads(place.read_text())
    content["images"][0] |= {"width": 80, "height": 40}
    place.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"annotation a\.png is of a picture of 40x20, not 80x40$"):
        Coco(path=str(coco)).read()
    content["images"][0] |= {"width": 20, "height": 40}
    place.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"picture of 40x20 \(upright, .*\), not 20x40$"):
        Coco(path=str(coco)).read()
    content["images"][0] |= {"width": "40.0", "height": 20}
    place.write_text(json.dumps(content))
    assert len(Coco(path=str(coco)).read().train.boxes) == 2
    (coco / "other").mkdir()
    (coco / "images" / "c.png").rename(coco / "other" / "a.png")
    (coco / "pictures.csv").write_text(TABLE.replace("images/c.png", "other/a.png"))
    told = r"annotations tell images/a\.png and other/a\.png apart: both are file_name a\.png$"
    with pytest.raises(ConfigError, match=told):
        Coco(path=str(coco)).read()


def test_coco_ids_may_be_texts_and_crowds_need_no_box(coco):
    place = coco / "annotations" / "train.json"
    expected = Coco(path=str(coco), size=40).read().train
    content = json.loads(place.read_text())
    for one in content["images"] + content["categories"]:
        one["id"] = str(one["id"])
    for one in content["annotations"]:
        one |= {"image_id": str(one["image_id"]), "category_id": str(one["category_id"])}
    content["annotations"][2]["bbox"] = []
    place.write_text(json.dumps(content))
    found = Coco(path=str(coco), size=40).read().train
    assert np.array_equal(found.boxes, expected.boxes)
    assert np.array_equal(found.box_class, expected.box_class)
    content["images"][1]["id"] = content["images"][0]["id"]
    place.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"train\.json: two images have the id 10\)$"):
        Coco(path=str(coco)).read()


def test_coco_files_that_are_none_are_refused(coco):
    for text in ("{}", "[]", json.dumps({"images": [], "annotations": [{"image_id": 10, "caption": "A car."}]})):
        (coco / "annotations" / "val.json").write_text(text)
        with pytest.raises(
            ConfigError, match=r"in COCO's format \(val\.json has no list of .*: data\.annotations chooses"
        ):
            Coco(path=str(coco)).read()
    with pytest.raises(ConfigError, match=r"annotations are in labels\.json"):
        Coco(path=str(coco), annotations="labels.json").fingerprint()


@pytest.mark.parametrize(
    ("names", "category", "message"),
    [
        ("gahi", "car", r"val\.json: two images have the file_name a\.png"),
        ("ghgi", "car", r"val\.json: two images have the file_name g\.png"),
        ("ghi", "lorry", r"val\.json: category 3 is car and lorry"),
    ],
)
def test_coco_names_that_are_not_clear_are_refused(coco, names, category, message):
    categories = [{"id": 7, "name": "bus"}, {"id": 3, "name": category}]
    (coco / "annotations" / "val.json").write_text(coco_file(names, [], categories))
    with pytest.raises(ConfigError, match=rf"^data\.path=.*{message}\)$"):
        Coco(path=str(coco)).read()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_id": 555}, "annotation 5 is of image 555, which is not there"),
        ({"category_id": 99}, "annotation 5 is of category 99, which is not there"),
        ({"bbox": [1, 2, 3]}, r"annotation 5 has as bbox \[1, 2, 3\]"),
        ({"bbox": "left"}, "annotation 5 has as bbox left"),
        ({"bbox": None}, "annotation 5 has no bbox"),
    ],
)
def test_coco_annotations_that_are_wrong_are_named(coco, changed, message):
    place = coco / "annotations" / "train.json"
    content = json.loads(place.read_text())
    content["annotations"][1] |= {"id": 5, **changed}
    place.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=rf"is in COCO's format \(train\.json: {message}\)$"):
        Coco(path=str(coco)).read()


@pytest.fixture
def bdd(tmp_path) -> Path:
    """4 training and 2 validation pictures of each weather, and one by night without a weather of the four."""
    for part, count in (("train", 4), ("val", 2)):
        (tmp_path / "images" / "100k" / part).mkdir(parents=True)
        frames = []
        for tag in ("partly cloudy", "overcast", "rainy", "snowy", "clear"):
            for i in range(count):
                name = f"{part}-{tag[:2]}-{i}.jpg"
                Image.fromarray(np.zeros((18, 32, 3), np.uint8)).save(tmp_path / "images" / "100k" / part / name)
                box = {"category": "pedestrian", "box2d": {"x1": 0, "y1": 0, "x2": 8, "y2": 9}}
                lane = {"category": "lane", "poly2d": []}
                frames.append({"name": name, "attributes": {"weather": tag}, "labels": [box, lane] if i else None})
        (tmp_path / "labels" / "det_20").mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / "det_20" / f"det_{part}.json").write_text(json.dumps(frames))
    return tmp_path


def test_bdd100k_is_dealt_by_its_weather_tags(bdd):
    options = {"path": str(bdd), "size": 32, "classes": ["person"]}
    data = Bdd100k(**options).read()
    assert data.class_names == ("person",)
    assert data.domain_names == ("cloudy", "overcast", "rainy", "snowy")
    assert data.train.group.tolist() == data.train.domain.tolist() == np.repeat(np.arange(4), 4).tolist()
    assert data.test.domain.tolist() == np.repeat(np.arange(4), 2).tolist()
    assert np.diff(data.train.box_offsets).tolist() == [0, 1, 1, 1] * 4
    assert data.train.boxes_of(1)[0].tolist() == [[0, 7, 8, 16]]
    many = Bdd100k(**options, per_weather=2, pictures=2)
    assert sorted(row.party for row in many.rows() if row.part == "train") == [0, 0, 1, 2, 3, 4, 5, 6]
    assert {row.party: row.domain for row in many.rows()}[5] == "rainy"


def test_bdd100k_boxes_that_cannot_be_are_left_out_or_refused(bdd):
    place = bdd / "labels" / "det_20" / "det_train.json"
    content = json.loads(place.read_text())
    content[1]["labels"][0]["box2d"] = {"x1": 8, "y1": 0, "x2": 2, "y2": 9}
    place.write_text(json.dumps(content))
    data = Bdd100k(path=str(bdd), size=32, classes=["person"]).read()
    assert len(data.train.boxes) == 11
    first = "(first: box2d 1 of train-pa-1.jpg)"
    assert data.warnings[0].startswith(f"boxes left out: 1, of which 1 without a positive width and height {first}")
    content[1]["labels"][0]["box2d"]["x2"] = float("nan")
    place.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"finite numbers, which box2d 1 of train-pa-1\.jpg is not$"):
        Bdd100k(path=str(bdd), size=32, classes=["person"]).read()


def test_coco_names_of_other_machines_find_their_images(coco):
    expected = Coco(path=str(coco), size=40).read()
    place = coco / "annotations" / "train.json"
    content = json.loads(place.read_text())
    for prefix in ("images\\", "./images/", "/content/drive/set/images/", "C:\\set\\images\\", "IMAGES/"):
        changed = [{**one, "file_name": prefix + one["file_name"]} for one in content["images"]]
        place.write_text(json.dumps({**content, "images": changed}), encoding="utf-8-sig")
        found = Coco(path=str(coco), size=40).read()
        assert np.array_equal(found.train.boxes, expected.train.boxes)
        assert found.train.annotated.tolist() == expected.train.annotated.tolist()
    changed = [{**one, "file_name": f"photos/{one['file_name']}"} for one in content["images"]]
    place.write_text(json.dumps({**content, "images": changed}))
    told = (
        r"have images/a\.png: .* \(looked for images/a\.png among the file_name of .*: photos/a\.png, photos/b\.png, \."
    )
    with pytest.raises(ConfigError, match=told):
        Coco(path=str(coco), size=40).read()
    changed = [{**one, "file_name": f"{'xy'[i]}/images/a.png"} for i, one in enumerate(content["images"])]
    place.write_text(json.dumps({**content, "images": changed}))
    with pytest.raises(ConfigError, match=r"images/a\.png may be file_name x/images/a\.png or y/images/a\.png$"):
        Coco(path=str(coco), size=40).read()


def test_a_table_written_on_windows_names_its_files(coco):
    expected = Coco(path=str(coco), size=40).read()
    for prefix in ("images\\", "./images/", ".\\images\\", " images/"):
        (coco / "pictures.csv").write_text(TABLE.replace("images/", prefix))
        assert np.array_equal(Coco(path=str(coco), size=40).read().train.x, expected.train.x)


def test_bdd100ks_large_files_are_read_once_however_many_processes_ask(bdd, monkeypatch):
    first = Bdd100k(path=str(bdd), size=32)
    rows, known = first.rows(), first.fingerprint()
    monkeypatch.setattr(Bdd100k, "_read", lambda _: pytest.fail("read again"))
    again = Bdd100k(path=str(bdd), size=32)
    assert again.rows() == rows
    assert again.fingerprint() == known
    monkeypatch.undo()
    assert len(Bdd100k(path=str(bdd), size=32, pictures=2).rows()) == len(rows) - 8
    labels = bdd / "labels" / "det_20" / "det_val.json"
    labels.write_text(json.dumps(json.loads(labels.read_text())[2:]))
    assert len(Bdd100k(path=str(bdd), size=32).rows()) == len(rows) - 2
    labels.write_text("[")
    with pytest.raises(ConfigError, match=r"det_val\.json are BDD100K's"):
        Bdd100k(path=str(bdd), size=32).rows()


def test_bdd100k_mixed_gives_every_party_each_weather(bdd):
    data = Bdd100k(path=str(bdd), size=32, classes=["person"], weather="iid").read()
    for party in range(4):
        assert np.bincount(data.train.domain[data.train.group == party]).tolist() == [1] * 4
    with pytest.raises(ConfigError, match=r"labels/det_20/det_train\.json can be read \(No such file or directory\)"):
        Bdd100k(path=str(bdd / "images")).fingerprint()
    with pytest.raises(
        ConfigError, match=r"^data\.path='nowhere': must be a folder with pictures and their annotations$"
    ):
        Bdd100k(path="nowhere").fingerprint()
