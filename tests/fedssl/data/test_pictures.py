"""Tests of the sources of a user's pictures: fedssl.data.pictures, yolo, coco, voc and bdd100k."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES
from fedssl.data.bdd100k import Bdd100k
from fedssl.data.cache import open_dataset
from fedssl.data.coco import Coco
from fedssl.data.voc import Voc
from fedssl.data.yolo import Yolo
from fedssl.partition.labels import AsIs, AtServer, NoLabels
from fedssl.partition.natural import Natural
from fedssl.partition.split import BACKGROUND, make_split

TABLE = """file,part,party,domain
images/a.png,train,server,clear
images/b.png,train,server,clear
images/c.png,train,0,rain
images/d.png,train,1,clear
images/e.png,train,1,rain
images/f.png,train,,rain
images/g.png,val,,clear
images/h.png,test,,clear
images/i.png,test,,rain
"""


def pictures(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate("abcdefghij"):
        Image.fromarray(np.full((20, 40, 3), 20 * i, np.uint8)).save(folder / "images" / f"{name}.png")
    (folder / "pictures.csv").write_text(TABLE)


@pytest.fixture
def yolo(tmp_path) -> Path:
    """Boxes: a car at 10, 5, 30, 15 in a and everything scored, a bus in d, nothing in b."""
    pictures(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("car\nbus\n")
    for name in "aghi":
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "labels" / "b.txt").write_text("")
    (tmp_path / "labels" / "d.txt").write_text("1 0.1 0.5 0.4 1\n")
    return tmp_path


def test_who_holds_what_is_in_the_table(yolo):
    data = Yolo(path=str(yolo), size=40).read()
    assert data.train.group.tolist() == [0, 0, 1, 2, 2, -1]
    assert (data.group_names, data.server_groups) == (("server", "client 0", "client 1"), (0,))
    assert data.domain_names == ("clear", "rain")
    assert data.train.domain.tolist() == [0, 0, 1, 0, 1, 1]
    assert data.test.domain.tolist() == [0, 1]
    assert data.train.y.tolist() == [0, -1, -1, 1, -1, -1]
    # 40 x 20 in a square of 40: 10 rows of grey above; a box that leaves the picture is cut.
    assert data.train.boxes_of(0)[0].tolist() == [[10, 15, 30, 25]]
    assert data.train.boxes_of(3)[0].tolist() == [[0, 10, 12, 30]]
    assert data.train.x[3, 10:30].tolist() == np.full((20, 40, 3), 60).tolist()
    assert Yolo(path=str(yolo), size=40, evaluate_on="val").read().test.x[0, 20, 20, 0] == 120


def test_the_split_gives_the_server_its_empty_scenes_and_clients_their_weathers(yolo):
    data = Yolo(path=str(yolo), size=40).read()
    split = make_split(data, Natural(), NoLabels(), 2, 0.0, seed=0)
    assert split.server().labelled.tolist() == [0, 1]
    assert split.server_label.tolist() == [0, -1]
    assert [split.client(client).unlabelled.tolist() for client in range(2)] == [[2], [3, 4]]
    assert [split.client(client).test.tolist() for client in range(2)] == [[1], [0, 1]]
    assert split.dropped == 1


@pytest.mark.parametrize("labels", [AsIs(), AtServer(rate=1.0), AtServer(rate=1.0, copies=True)])
def test_pictures_of_clients_without_boxes_are_labelled_if_somebody_annotated_them(yolo, labels, tmp_path_factory):
    (yolo / "labels" / "e.txt").write_text("")
    cache = tmp_path_factory.mktemp("cache")
    for data in (open_dataset(Yolo(path=str(yolo), size=40), cache) for _ in range(2)):
        assert data.train.annotated.tolist() == [True, True, False, True, True, False]
        assert data.train.y.tolist() == [0, -1, -1, 1, -1, -1]
        assert data.train.background.tolist() == [False, True, False, False, True, False]
        at_server = isinstance(labels, AtServer)
        moved = at_server and not labels.copies
        split = make_split(data, Natural(), labels, 1 if moved else 2, 0.0, seed=0)
        assert split.server().labelled.tolist() == [0, 1] + [3, 4] * at_server
        held = [split.client(client) for client in range(split.num_clients)]
        assert [one.labelled.tolist() for one in held] == ([[]] if moved else [[], []] if at_server else [[], [3, 4]])
        assert [one.unlabelled.tolist() for one in held] == ([[2]] if moved else [[2], [3, 4] * at_server])
        assert split.given(6).tolist() == ([0, -1, -1, 1, -1, -1] if at_server else [0, -1, -1, 1, BACKGROUND, -1])


def test_chosen_classes_are_renumbered_and_others_leave_no_box(yolo):
    data = Yolo(path=str(yolo), size=40, classes=["bus"]).read()
    assert data.class_names == ("bus",)
    assert np.diff(data.train.box_offsets).tolist() == [0, 0, 0, 1, 0, 0]
    assert data.test.box_class.tolist() == []
    with pytest.raises(ConfigError, match=r"^data\.classes='tram': must be of car, bus"):
        Yolo(path=str(yolo), classes=["tram"]).read()


def test_the_fingerprint_follows_files_and_options(yolo):
    source = Yolo(path=str(yolo))
    first = source.fingerprint()
    assert source.fingerprint() == first
    assert Yolo(path=str(yolo), size=64).fingerprint() != first
    (yolo / "labels" / "d.txt").write_text("1 0.2 0.5 0.4 1.0\n")
    second = source.fingerprint()
    assert second != first
    (yolo / "labels" / "c.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert source.fingerprint() not in (first, second)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labels/a.txt", "2 0.5 0.5 0.1 0.1", r"labels/a\.txt is lines of class 0\.\.1"),
        ("labels/a.txt", "0.5 0.5 0.5 0.1 0.1", r"labels/a\.txt is lines of class"),
        ("labels/a.txt", "0 0.5 0.5 0.1", r"labels/a\.txt is lines of class"),
        ("labels/a.txt", "car 0.5 0.5 0.1 0.1", r"labels/a\.txt is lines of class"),
        ("labels/a.txt", "0 nan 0.5 0.1 0.1", r"labels/a\.txt is lines of class"),
        ("labels/a.txt", "0 0.5 0.5 1 1\n\n0 20 10 20 10", r"labels/a\.txt has shares of .* 0\.\.1, in line 3"),
        ("labels/a.txt", "0 0.5 1.01 0.1 0.1", r"labels/a\.txt has shares of .* 0\.\.1, in line 1"),
        ("classes.txt", "car\ncar\n", r"classes\.txt has different names, one a line"),
        ("images/c.png", "text", r"images/c\.png is a sound JPEG, PNG, WEBP image"),
        ("pictures.csv", TABLE.replace("party", "owner"), r"pictures\.csv has the column party"),
        ("pictures.csv", TABLE.replace(",0,rain", ",me,rain"), "party `server`, a number or nothing in line 4"),
        ("pictures.csv", TABLE.replace("c.png,train", "c.png,training"), "a file and one of .* in line 4"),
        ("pictures.csv", TABLE.replace("1,rain", "1,total"), "has no domain `total`, .* in line 6"),
        ("pictures.csv", TABLE.replace("test,", "val,"), "table has a picture of part test"),
        (
            "pictures.csv",
            TABLE.replace("a.png,train,server", "j.png,train,server"),
            "have images/j.png: pictures of the",
        ),
        ("pictures.csv", TABLE.replace("images/c", "images/z"), r"z\.png can be read"),
        ("pictures.csv", TABLE.replace("i.png,test", "a.png,test"), r"table has images/a\.png once"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(yolo, file, text, message):
    (yolo / file).write_text(text)
    with pytest.raises(ConfigError, match=r"^data\.path=.*" + message) as error:
        Yolo(path=str(yolo), size=40).read() if "z\\." not in message else Yolo(path=str(yolo)).fingerprint()
    assert "\n" not in str(error.value)


def test_class_names_may_be_in_the_yaml_of_yolo_trainers(yolo):
    (yolo / "classes.txt").unlink()
    place = yolo / "data.yaml"
    for text in ("names: [car, bus]", "names:\n  1: bus\n  0: car"):
        place.write_text(text)
        assert Yolo(path=str(yolo), size=40).read().class_names == ("car", "bus")
    for text in ("names: [car, car]", "names: {1: bus, 2: car}", "names: car"):
        place.write_text(text)
        with pytest.raises(ConfigError, match=r"data\.yaml has different names, from 0 on$"):
            Yolo(path=str(yolo)).read()
    for text in ("nc: 2", "names: ["):
        place.write_text(text)
        with pytest.raises(ConfigError, match=r"data\.yaml can be read \("):
            Yolo(path=str(yolo)).read()


def test_a_table_saved_by_a_spreadsheet_is_read(yolo):
    (yolo / "pictures.csv").write_text(TABLE, encoding="utf-8-sig")
    assert len(Yolo(path=str(yolo), size=40).read().train.x) == 6


def test_pictures_are_turned_upright_as_their_camera_says(yolo):
    picture = Image.new("RGB", (20, 40))
    picture.paste((255, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(yolo / "images" / "a.png", exif=exif)
    data = Yolo(path=str(yolo), size=40).read()
    assert data.train.x[0, 20, [5, 35]].tolist() == [[0, 0, 0], [255, 0, 0]]
    assert data.train.boxes_of(0)[0].tolist() == [[10, 15, 30, 25]]


def test_no_folder_no_table_and_no_box_are_refused(tmp_path, yolo):
    with pytest.raises(ConfigError, match=r"^data\.path='': must be a folder"):
        Yolo().fingerprint()
    with pytest.raises(ConfigError, match=r"other\.csv can be read"):
        Yolo(path=str(yolo), table="other.csv").fingerprint()
    for name in "ad":
        (yolo / "labels" / f"{name}.txt").write_text("")
    with pytest.raises(ConfigError, match="training pictures have a box"):
        Yolo(path=str(yolo)).read()
    assert SOURCES.get("yolo").task == "detection"


def voc_file(*objects: tuple[str, int, int, int, int, int], size: str = "<width>40</width><height>20</height>") -> str:
    text = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, difficult in objects
    )
    return f"<annotation><size>{size}</size>{text}</annotation>"


@pytest.fixture
def voc(tmp_path) -> Path:
    """The boxes of `yolo`, and in a a bus that is marked as difficult."""
    pictures(tmp_path)
    (tmp_path / "annotations").mkdir()
    car = ("car", 10, 5, 30, 15, 0)
    texts = {name: voc_file(car) for name in "ghi"} | {"b": voc_file(), "d": voc_file(("bus", -4, 0, 12, 20, 0))}
    texts["a"] = voc_file(car, ("bus", 0, 0, 5, 5, 1), size="")
    for name, text in texts.items():
        (tmp_path / "annotations" / f"{name}.xml").write_text(text)
    return tmp_path


def test_voc_gives_what_yolo_gives(voc):
    data = Voc(path=str(voc), size=40).read()
    assert data.class_names == ("bus", "car")
    assert data.train.annotated.tolist() == [True, True, False, True, False, False]
    assert data.train.boxes_of(0)[0].tolist() == [[10, 15, 30, 25]]
    assert data.train.boxes_of(3)[0].tolist() == [[0, 10, 12, 30]]
    assert data.train.box_class.tolist() == [1, 0]
    assert Voc(path=str(voc), size=40, difficult=True).read().train.box_class.tolist() == [1, 0, 0]
    assert Voc(path=str(voc), size=40, classes=["car", "bus"]).read().train.box_class.tolist() == [0, 1]


def test_a_changed_voc_file_is_read_again(voc):
    source = Voc(path=str(voc), size=40)
    first = source.fingerprint()
    assert source.read().train.box_class.tolist() == [1, 0]
    (voc / "annotations" / "c.xml").write_text(voc_file(("car", 0, 0, 40, 20, 0)))
    assert source.fingerprint() != first
    assert source.read().train.box_class.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("annotations/a.xml", "<annotation>", r"annotations/a\.xml is in VOC's format \(no element found"),
        ("annotations/a.xml", "<html></html>", r"a\.xml is in VOC's format \(<html> instead of <annotation>"),
        ("annotations/a.xml", voc_file(("", 1, 1, 2, 2, 0)), "object 1 lacks a name or a corner"),
        ("annotations/a.xml", voc_file(("car", 1, 1, 2, 2, 0)).replace("ymax", "top"), "object 1 lacks a name"),
        ("annotations/a.xml", voc_file(("car", 1, 1, "nan", 2, 0)), "object 1 has a corner that is no number"),
        ("annotations/a.xml", voc_file(("car", 1, 1, "right", 2, 0)), "could not convert string to float: 'right'"),
        (
            "annotations/h.xml",
            voc_file(size="<width>20</width><height>40</height>"),
            r"h\.xml is of a picture of 40x20, not 20x40",
        ),
        ("pictures.csv", TABLE.replace("images/b.png", "more/a.png"), "table has one picture of the name a"),
    ],
)
def test_what_is_wrong_in_a_voc_folder_is_named_in_one_line(voc, file, text, message):
    (voc / file).write_text(text)
    with pytest.raises(ConfigError, match=r"^data\.path=.*" + message) as error:
        Voc(path=str(voc), size=40).read()
    assert "\n" not in str(error.value)


def test_a_voc_folder_without_objects_is_refused(voc):
    with pytest.raises(ConfigError, match=r"other has an XML file with an object"):
        Voc(path=str(voc), annotations="other").read()


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
    with pytest.raises(ConfigError, match=r"annotation of a\.png is of a picture of 40x20, not 80x40$"):
        Coco(path=str(coco)).read()
    content["images"][0] |= {"width": 40, "height": 20}
    place.write_text(json.dumps(content))
    assert len(Coco(path=str(coco)).read().train.boxes) == 2
    (coco / "other").mkdir()
    (coco / "images" / "c.png").rename(coco / "other" / "a.png")
    (coco / "pictures.csv").write_text(TABLE.replace("images/c.png", "other/a.png"))
    told = r"annotations tell images/a\.png and other/a\.png apart: both are file_name a\.png$"
    with pytest.raises(ConfigError, match=told):
        Coco(path=str(coco)).read()


def test_coco_files_that_are_none_are_refused(coco):
    (coco / "annotations" / "val.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"annotations/\*\.json is in COCO's format \(KeyError"):
        Coco(path=str(coco)).read()
    with pytest.raises(ConfigError, match=r"annotations are in labels\.json"):
        Coco(path=str(coco), annotations="labels.json").fingerprint()


@pytest.mark.parametrize(
    ("names", "category", "message"),
    [
        ("gahi", "car", r"ValueError: two images have the file_name a\.png"),
        ("ghgi", "car", r"ValueError: two images have the file_name g\.png"),
        ("ghi", "lorry", "ValueError: category 3 is car and lorry"),
    ],
)
def test_coco_names_that_are_not_clear_are_refused(coco, names, category, message):
    categories = [{"id": 7, "name": "bus"}, {"id": 3, "name": category}]
    (coco / "annotations" / "val.json").write_text(coco_file(names, [], categories))
    with pytest.raises(ConfigError, match=rf"^data\.path=.*{message}\)$"):
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


def test_bdd100k_mixed_gives_every_party_each_weather(bdd):
    data = Bdd100k(path=str(bdd), size=32, classes=["person"], weather="iid").read()
    for party in range(4):
        assert np.bincount(data.train.domain[data.train.group == party]).tolist() == [1] * 4
    with pytest.raises(ConfigError, match=r"det_val\.json are BDD100K's"):
        Bdd100k(path=str(bdd / "images")).fingerprint()
    with pytest.raises(
        ConfigError, match=r"^data\.path='nowhere': must be a folder with pictures and their annotations$"
    ):
        Bdd100k(path="nowhere").fingerprint()
