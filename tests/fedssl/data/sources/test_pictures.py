"""Tests of the sources of a user's pictures: fedssl.data.sources.pictures, yolo and voc."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import TABLE, pictures
from PIL import Image

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES
from fedssl.data.cache import open_dataset
from fedssl.data.sources.voc import Voc
from fedssl.data.sources.yolo import Yolo
from fedssl.partition.labels import AsIs, AtServer, NoLabels
from fedssl.partition.natural import Natural
from fedssl.partition.split import BACKGROUND, make_split
from fedssl.progress import listening
from simulations.compose import compose_experiment
from simulations.run import prepare_split


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


def test_too_many_clients_are_refused_before_a_picture_is_decoded(yolo, monkeypatch):
    words = f"method=fedsto data=yolo data.path={yolo} data.size=64 clients=3".split()
    monkeypatch.setattr(Yolo, "read", lambda _: pytest.fail("decoded"))
    with pytest.raises(ConfigError, match="clients=3: must be at most 2, the groups"):
        prepare_split(compose_experiment(words))


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
        ("labels/a.txt", "2 0.5 0.5 0.1 0.1", r"labels/a\.txt has class 0\.\.1 and centre x.*, in line 1"),
        ("labels/a.txt", "0.5 0.5 0.5 0.1 0.1", r"labels/a\.txt has class"),
        ("labels/a.txt", "0 0.5 0.5 0.1", r"labels/a\.txt has class"),
        ("labels/a.txt", "car 0.5 0.5 0.1 0.1", r"labels/a\.txt has class"),
        ("labels/a.txt", "0 nan 0.5 0.1 0.1", r"labels/a\.txt has class"),
        ("labels/a.txt", "0 -0.1 0.5 0.1 0.1", r"labels/a\.txt has class"),
        ("labels/a.txt", "0 0.5 0.5 0.1 0.1 0.9", r"labels/a\.txt has class"),
        ("labels/a.txt", "0 0.5 0.5 1 1\n\n0 20 10 20 10", r"labels/a\.txt has .* of the sides, 0\.\.1, in line 3"),
        ("labels/a.txt", "0 0.5 1.01 0.1 0.1", r"labels/a\.txt has .* of the sides, 0\.\.1, in line 1"),
        ("classes.txt", "car\ncar\n", r"classes\.txt has different names, one a line \(car is of 0 and 1\)$"),
        ("images/c.png", "text", r"images/c\.png is a sound JPEG, PNG, WEBP image"),
        ("pictures.csv", TABLE.replace("party", "owner"), r"pictures\.csv has the columns .* \(it lacks party,"),
        (
            "pictures.csv",
            TABLE.replace(",", ";"),
            r"with commas between \(it lacks file, .* 'file;part;party;domain'\)",
        ),
        ("pictures.csv", TABLE.replace(",0,rain", ",me,rain"), "party `server`, a number of .* in line 4"),
        ("pictures.csv", TABLE.replace(",0,rain", f",{10**20},rain"), "up to 9 digits or nothing in line 4"),
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
    for text in ("names: [car, bus]", "names:\n  1: bus\n  0: car", "names: {'0': car, '1': bus}"):
        place.write_text(text)
        assert Yolo(path=str(yolo), size=40).read().class_names == ("car", "bus")
    for text in ("names: [car, car]", "names: {1: bus, 2: car}", "names: car", "names: ['']"):
        place.write_text(text)
        with pytest.raises(ConfigError, match=r"data\.yaml has different names, from 0 on( \(car is of 0 and 1\))?$"):
            Yolo(path=str(yolo)).read()
    for text in ("nc: 2", "names: ["):
        place.write_text(text)
        with pytest.raises(ConfigError, match=r"classes\.txt or data\.yaml can be read \(data\.yaml: "):
            Yolo(path=str(yolo)).read()


def test_files_saved_by_a_spreadsheet_are_read(yolo):
    (yolo / "pictures.csv").write_text(TABLE, encoding="utf-8-sig")
    (yolo / "classes.txt").write_text("car\nbus\n", encoding="utf-8-sig")
    data = Yolo(path=str(yolo), size=40).read()
    assert (len(data.train.x), data.class_names) == (6, ("car", "bus"))


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.5 0.5 1.0000001 1", [0, 10, 40, 30]),
        ("0 -1e-7 0.5 1 1", [0, 10, 20, 30]),
        ("\ufeff0 0.5 0.5 0.5 0.5", [10, 15, 30, 25]),
        ("0 0.25 0.5 0.5 0 0.75 1", [10, 10, 30, 30]),
    ],
)
def test_lines_as_tools_write_them(yolo, line, box):
    (yolo / "labels" / "a.txt").write_text(line + "\n")
    assert Yolo(path=str(yolo), size=40).read().train.boxes_of(0)[0].tolist() == [box]


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


def test_the_folder_of_voc_itself_is_found(voc):
    source = Voc(path=str(voc), size=40)
    expected = source.read().train.boxes
    (voc / "annotations").rename(voc / "Annotations")
    assert np.array_equal(source.read().train.boxes, expected)


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
            r"h\.xml is of a picture of 40x20 \(upright, by its EXIF tag .*\), not 20x40",
        ),
        ("pictures.csv", TABLE.replace("images/b.png", "more/a.png"), "table has one picture of the name a"),
    ],
)
def test_what_is_wrong_in_a_voc_folder_is_named_in_one_line(voc, file, text, message):
    (voc / file).write_text(text)
    with pytest.raises(ConfigError, match=r"^data\.path=.*" + message) as error:
        Voc(path=str(voc), size=40).read()
    assert "\n" not in str(error.value)


def test_a_file_outside_the_folder_is_named_from_it(voc, tmp_path_factory):
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "a.xml").write_text("<html></html>")
    with pytest.raises(ConfigError, match=r"a folder whose \.\./.*/a\.xml is in VOC's format"):
        Voc(path=str(voc), annotations=str(place)).read()


def test_a_listener_hears_how_far_pictures_are_decoded(yolo):
    heard = []
    with listening(lambda *told: heard.append(told)):
        data = Yolo(path=str(yolo), size=32).read()
    train, test = len(data.train), len(data.test)
    expected = [("decoding training pictures", done, train) for done in range(train + 1)]
    assert heard == expected + [("decoding test pictures", done, test) for done in range(test + 1)]


def test_a_voc_folder_without_objects_is_refused(voc):
    with pytest.raises(ConfigError, match=r"other has an XML file with an object"):
        Voc(path=str(voc), annotations="other").read()
