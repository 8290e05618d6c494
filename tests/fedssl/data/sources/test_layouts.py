"""Tests of folders without a table: the parts that COCO's, YOLO's and VOC's tools write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import Scene, coco_json, draw, scenes, write

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES, Dataset
from fedssl.data.sources.layout import part_by_folder, part_of, subfolder
from fedssl.partition.iid import Iid
from fedssl.partition.labels import AtServer
from fedssl.partition.natural import Natural
from fedssl.partition.split import make_split

LAYOUTS = (
    layouts.coco,
    layouts.coco_roboflow,
    layouts.yolo,
    layouts.yolo_roboflow,
    layouts.voc,
    layouts.voc_roboflow,
)


def read(folder: Path, **options: object) -> Dataset:
    name = folder.name.partition("_")[0]
    source = SOURCES.create({"name": name, "path": str(folder), "size": 96, **options})
    source.fingerprint()
    return source.read()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_parts_and_boxes(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    data = read(layout(tmp_path / layout.__name__))
    for samples, part in ((data.train, "train"), (data.test, "test")):
        made = scenes(part, layouts.COUNTS[part])
        assert len(samples) == len(made)
        assert samples.annotated.all()
        assert samples.background.tolist() == [one.box is None for one in made]
        assert samples.y.tolist() == [one.label if one.box else -1 for one in made]
        assert set(samples.group) == {-1}
        # 96 x 64 in a square of 96: 16 rows of grey above.
        boxes = [[x1, y1 + 16, x2, y2 + 16] for x1, y1, x2, y2 in (one.box for one in made if one.box)]
        np.testing.assert_allclose(samples.boxes, boxes, atol=1e-3)
    assert data.class_names == layouts.NAMES
    missing = "images without a text file of boxes, which count as images without objects: 2 "
    told = (f"{missing}(first: images/train/train11.png)",) if layout is layouts.yolo else ()
    assert data.warnings == told
    scored = read(tmp_path / layout.__name__, evaluate_on="val")
    assert len(scored.test) == layouts.COUNTS["val"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_test_part_val_is_scored_and_without_both_a_share_of_train(
    layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = layout(tmp_path / layout.__name__)
    remove_part(folder, "test")
    data = read(folder)
    assert (len(data.train), len(data.test)) == (12, 4)
    assert any(line.endswith("no test part: images of val are scored: 4 (first: " + first + ")")
               for line in data.warnings for first in [line.rpartition("(first: ")[2][:-1]])  # fmt: skip
    remove_part(folder, "val")
    data = read(folder, test_share=0.25)
    assert (len(data.train), len(data.test)) == (9, 3)
    assert "images drawn from train (data.test_share=0.25) are scored: 3" in data.warnings[-1]
    again = read(folder, test_share=0.25)
    assert np.array_equal(data.test.x, again.test.x)
    with pytest.raises(ConfigError, match=r"^data\.test_share=1\.0: must be"):
        read(folder, test_share=1.0)


def remove_part(folder: Path, part: str) -> None:
    """Remove all files of a part, and its line of a data.yaml."""
    for place in sorted(folder.rglob("*"), reverse=True):
        if place.is_file() and (part_of(place.name) == part or part_by_folder(str(place.relative_to(folder))) == part):
            place.unlink()
    if (settings := folder / "data.yaml").is_file():
        lines = settings.read_text().splitlines()
        settings.write_text("\n".join(line for line in lines if not line.startswith(f"{part}:")))


def test_images_are_dealt_and_the_server_gets_labels_of_each_kind(tmp_path: Path) -> None:
    data = read(layouts.coco(tmp_path / "coco"))
    split = make_split(data, Iid(), AtServer(rate=0.5), 2, 0.25, seed=0)
    server = split.server().labelled
    assert sorted(data.train.y[server].tolist()) == [-1, 0, 0, 0, 1, 1, 1]
    held = [split.client(k) for k in range(2)]
    assert not any(len(one.labelled) for one in held)
    everything = np.concatenate([server, *(one.unlabelled for one in held), split.validation_index])
    assert set(everything) == set(range(12))
    # Test images without boxes belong to the test too, where a client's own images have some.
    assert set(np.concatenate([one.test for one in held])) <= set(range(5))


def test_subfolders_in_train_and_test_are_the_domains_of_natural_clients(tmp_path: Path) -> None:
    folder = layouts.yolo(tmp_path / "yolo")
    for part, count in layouts.COUNTS.items():
        for i, one in enumerate(scenes(part, count)):
            city = ("bonn", "ulm")[i % 2]
            for kind, suffix in (("images", "png"), ("labels", "txt")):
                place = folder / kind / part / f"{one.name}.{suffix}"
                (place.parent / city).mkdir(exist_ok=True)
                if place.is_file():
                    place.rename(place.parent / city / place.name)
    data = read(folder)
    assert data.domain_names == ("bonn", "ulm")
    assert data.train.group.tolist() == [1] * 6 + [2] * 6
    split = make_split(data, Natural(), AtServer(rate=0.5), 2, 0.0, seed=0)
    for client in range(2):
        indices = split.client(client)
        assert set(data.train.domain[indices.unlabelled]) == set(data.test.domain[indices.test]) == {client}
    shutil.rmtree(folder / "images" / "test" / "ulm")
    assert read(folder).domain_names == ()


def test_folders_without_subfolders_have_no_natural_clients(tmp_path: Path) -> None:
    source = SOURCES.create({"name": "voc", "path": str(layouts.voc(tmp_path / "voc"))})
    groups = source.client_groups()
    assert groups is not None
    with pytest.raises(ConfigError, match=r"^partition='natural': must be another one, such as iid"):
        Natural().client_groups(groups, 2)
    assert not source.dealt


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_in_a_folder_named_unlabelled_are_trained_on_without_labels(
    layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = layout(tmp_path / layout.__name__)
    place = {"yolo": "images/unlabelled", "voc": "JPEGImages/unlabeled"}.get(layout.__name__, "unlabeled2017")
    for one in scenes("more", 3):
        draw(one, folder / place / f"{one.name}.png")
        # Boxes that somebody has put there do not count.
        write(folder / place / f"{one.name}.xml", layouts.voc_text(one))
        write(folder / place / f"{one.name}.txt", layouts.yolo_text(one))
    data = read(folder)
    assert data.train.annotated.tolist() == [True] * 12 + [False] * 3
    assert not data.train.background[12:].any()
    split = make_split(data, Iid(), AtServer(rate=1.0), 3, 0.0, seed=0)
    assert len(split.server().labelled) == 12
    assert sorted(np.concatenate([split.client(k).unlabelled for k in range(3)])) == [12, 13, 14]


def test_rules_of_images_without_annotations(tmp_path: Path) -> None:
    """VOC: unlabelled in train, left out of test. COCO: images that no JSON lists are left out."""
    voc = layouts.voc(tmp_path / "voc")
    (voc / "Annotations" / "train00.xml").unlink()
    (voc / "Annotations" / "test00.xml").unlink()
    data = read(voc)
    assert data.train.annotated.tolist() == [True] * 11 + [False]
    assert len(data.test) == 4
    assert data.warnings == (
        "training images without an XML file, unlabelled: 1 (first: JPEGImages/train00.png); "
        "images that belong to no part, left out: 1 (first: JPEGImages/test00.png)",
    )
    coco = layouts.coco(tmp_path / "coco")
    draw(Scene("new", None, 0), coco / "train2017" / "new.png")
    (coco / "val2017" / "val00.png").unlink()
    (coco / "train2017" / "train03.png").unlink()
    data = read(coco)
    assert (len(data.train), len(data.test)) == (11, 5)
    assert data.warnings == (
        "images of annotations/instances_train2017.json that are not there: 1 (first: train03.png); "
        "images of annotations/instances_val2017.json that are not there: 1 (first: val00.png); "
        "images that belong to no part, left out: 1 (first: train2017/new.png)",
    )


def test_a_coco_test_without_annotations_is_not_scored(tmp_path: Path) -> None:
    folder = layouts.coco(tmp_path / "coco")
    place = folder / "annotations" / "instances_test2017.json"
    content = json.loads(place.read_text())
    del content["annotations"]
    place.write_text(json.dumps(content))
    assert len(read(folder).test) == layouts.COUNTS["val"]


def test_names_that_two_parts_share_go_by_the_part(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    for part in ("train", "val"):
        made = [Scene("0001", (5, 5, 35, 30) if part == "train" else (20, 20, 60, 50), 1)]
        draw(made[0], folder / part / "images" / "0001.png")
        write(folder / part / "labels.json", coco_json(made))
    data = read(folder)
    assert (data.train.boxes.tolist(), data.test.boxes.tolist()) == ([[5, 21, 35, 46]], [[20, 36, 60, 66]])
    (folder / "train" / "other").mkdir()
    shutil.copy(folder / "train/images/0001.png", folder / "train/other/0001.png")
    told = r"0001\.png of labels\.json may be train/images/0001\.png or train/other/0001\.png$"
    with pytest.raises(ConfigError, match=told):
        read(folder)


def test_lists_of_yolo_tools_name_images_of_another_machine(tmp_path: Path) -> None:
    folder = tmp_path / "yolo"
    for part in ("train", "val"):
        made = scenes(part, 4)
        for one in made:
            draw(one, folder / "data" / f"{one.name}.png")
            write(folder / "data" / f"{one.name}.txt", layouts.yolo_text(one))
        write(folder / f"{part}.txt", "".join(f"C:\\work\\data\\{one.name}.png\r\n" for one in made))
    write(folder / "obj.names", "bus\ncar\n")
    write(folder / "mine.yaml", "train: /content/drive/train.txt\nval: [/content/drive/val.txt]\n")
    data = read(folder)
    assert (len(data.train), len(data.test), data.class_names) == (4, 4, ("bus", "car"))
    source = SOURCES.create({"name": "yolo", "path": str(folder)})
    before = source.fingerprint()
    write(folder / "train.txt", "data/train00.png\n")
    assert source.fingerprint() != before
    write(folder / "train.txt", "data/train00.png\n\ndata/other.png\n")
    with pytest.raises(ConfigError, match=r"train\.txt names images in the folder, but line 3 is data/other\.png"):
        read(folder)
    write(folder / "train.txt", "data/val00.png\n")
    with pytest.raises(ConfigError, match=r"parts share no image, but data/val00\.png is in train and val$"):
        read(folder)


def test_a_test_part_of_data_yaml_that_was_not_exported_is_said(tmp_path: Path) -> None:
    folder = layouts.yolo_roboflow(tmp_path / "yolo")
    shutil.rmtree(folder / "test")
    data = read(folder)
    assert data.warnings[0].startswith("test of data.yaml that is not there: 1 (first: ../test/images); no test part")
    shutil.rmtree(folder / "valid")
    told = r"data\.yaml has as val a folder, .* unlike \.\./valid/images \(found: 12 images in train/images; at the top"
    with pytest.raises(ConfigError, match=told):
        read(folder)


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        (layouts.coco, ("train2017", None), r"images are those of .*train2017\.json, which has as file_name train00"),
        (layouts.coco, ("annotations", None), r"annotations are in .*instances_\*\.json or .*found: 12 images in"),
        (layouts.yolo, ("data.yaml", None), r"data\.yaml can be read \(classes\.txt: there is none; found: 12"),
        (layouts.yolo, ("labels", None), r"a box .* \(looked for labels/train/train00\.txt, \.\.\.; images wi"),
        (layouts.yolo, ("data.yaml", "- a"), r"\(data\.yaml: no keys and values; found"),
        (layouts.voc, ("Annotations", None), r"have XML files, as Annotations/train00\.xml \(found: 21 images in JPEG"),
        (layouts.voc, ("ImageSets/Main/val.txt", "val99"), r"Main/val\.txt names images .* line 1 is 'val99' \(found"),
        (layouts.voc_roboflow, ("train", None), r"are annotated \(there are 4 of part val, 5 of part test\)$"),
    ],
)  # fmt: skip
def test_what_was_looked_for_and_found_is_named(
    layout: Callable[[Path], Path], change: tuple[str, str | None], message: str, tmp_path: Path
) -> None:
    folder = layout(tmp_path / layout.__name__)
    place = folder / change[0]
    if change[1] is not None:
        place.write_text(change[1])
    elif place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    with pytest.raises(ConfigError, match=rf"^data\.path=.*{message}") as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_several_jsons_of_no_part_are_refused_and_one_is_split(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    made = scenes("one", 10)
    for one in made:
        draw(one, folder / "images" / f"{one.name}.png")
    write(folder / "annotations" / "instances_default.json", coco_json(made))
    data = read(folder)
    assert (len(data.train), len(data.test)) == (8, 2)
    write(folder / "annotations" / "instances_more.json", coco_json([]))
    told = (
        r"JSON files are named train, val or test, .* not annotations/instances_default\.json, annotations/instances_mo"
    )
    with pytest.raises(ConfigError, match=told):
        read(folder)


def test_an_empty_folder_says_what_images_are(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"BM")
    for name in ("coco", "yolo", "voc"):
        source = SOURCES.create({"name": name, "path": str(tmp_path)})
        with pytest.raises(
            ConfigError, match=r"images are JPEG, PNG or WebP files \(found: no images; at the top: a\.bmp\)"
        ):
            source.fingerprint()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train2017", "train"),
        ("instances_val2017.json", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("test-dev", "test"),
        ("Testing", "test"),
        ("obj_train_data", "train"),
        ("unlabeled2017", "unlabelled"),
        ("unlabelled", "unlabelled"),
        ("unlabel", "unlabelled"),
        ("trainval", ""),
        ("labeled", ""),
        ("contest", ""),
        ("evaluation", ""),
        ("restrained", ""),
    ],
)
def test_words_that_name_a_part(name: str, part: str) -> None:
    assert part_of(name) == part


def test_the_outermost_folder_says_the_part_and_the_rest_the_domain() -> None:
    assert part_by_folder("train/test_track/a.jpg") == "train"
    assert part_by_folder("images/train_a.jpg") == ""
    assert subfolder("images/train/berlin/day/a.jpg") == "berlin/day"
    assert subfolder("train2017/a.jpg") == ""
