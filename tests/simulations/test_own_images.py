"""A user's folders of images with boxes, without a table, from the command line to predictions."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.sources.shapes_synthetic import ShapesSynthetic
from fedssl.partition.iid import Iid
from fedssl.partition.labels import AtServer
from fedssl.partition.open_world import OpenWorld
from fedssl.partition.split import Split, make_split
from simulations import simulate
from simulations.cli import main
from simulations.compose import check, compose_experiment
from simulations.run import prepare

SERVER = "partition=iid labels=server labels.rate=0.5"
SMALL = "data.size=64 model=detector model.width=2 clients=2 rounds=1 engine=inline evaluation.batch_size=32"


def words(folder: Path, text: str) -> list[str]:
    return [*text.split(), f"data={folder.name.partition('_')[0]}", f"data.path={folder}"]


def test_a_split_tells_what_was_left_out_also_from_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = layouts.yolo(tmp_path / "yolo")
    told = "images without a text file of boxes, which count as images without objects: 2"
    chosen = words(folder, f"method=fedsto {SERVER} data.size=64 clients=2")
    for out in ("first", "second"):
        assert main(["split", *chosen, f"out={tmp_path / out}"]) == 0
        warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert warnings == [f"warning: {told} (first: images/train/train11.png)"]
        assert (tmp_path / out / "split.png").is_file()
    assert prepare(check(compose_experiment(chosen)))[0].startswith(told)


def test_a_folder_without_a_table_has_no_natural_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = layouts.voc(tmp_path / "voc")
    assert main(["split", *words(folder, "method=fedsto data.size=64"), f"out={tmp_path / 'out'}"]) == 2
    told = "fedssl: partition='natural': must be another one, such as iid: these samples have no natural groups\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_followed_is_told_and_no_table_is_not(tmp_path: Path) -> None:
    folder = layouts.coco(tmp_path / "coco")
    chosen = check(compose_experiment(words(folder, f"method=fedsto {SERVER} data.size=64 clients=2")))
    anew = "partition=iid deals out anew what the table gives to clients"
    assert anew not in prepare(chosen)
    rows = [[f"train2017/train{i:02d}.png", "train", "0", ""] for i in range(12)]
    rows += [["test2017/test00.png", "test", "", ""]]
    with (folder / "pictures.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "part", "party", "domain"], *rows])
    (folder / "annotations" / "captions_train2017.json").unlink()
    for part in ("val", "test"):
        (folder / "annotations" / f"captions_{part}2017.json").unlink()
    assert anew in prepare(chosen)


def test_rules_that_are_meant_for_one_class_a_sample_are_refused() -> None:
    data = ShapesSynthetic(size=64, pictures=36, test_pictures=4).read()
    with pytest.raises(ConfigError, match=r"^partition='open_world': must be another one: an image has boxes of seen"):
        make_split(data, OpenWorld(), AtServer(), 3, 0.0, seed=0)
    with pytest.raises(ConfigError, match=r"^labels\.noise=0\.1: must be 0 for images with boxes"):
        make_split(data, Iid(), AtServer(noise=0.1), 3, 0.0, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "method"),
    [
        (layouts.coco, f"method=fedsto {SERVER} method.warm_up=1 method.selective_rounds=0"),
        (layouts.coco_roboflow, f"method=ssfl {SERVER} method.warm_up=1 partition=dirichlet"),
        (layouts.yolo, f"method=server_only {SERVER} validation=0.2"),
        (layouts.yolo_roboflow, "method=fedavg partition=iid labels=client_rate labels.rate=0.5"),
        (layouts.voc, "method=fedavg partition=dirichlet labels=total_count labels.count=3"),
        (layouts.voc_roboflow, "method=fedavg partition=iid labels=some_clients labels.rate=1 validation=0.25"),
    ],
)
def test_every_layout_is_split_trained_on_and_predicted(
    layout: Callable[[Path], Path], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = layout(tmp_path / layout.__name__)
    given = dict(word.split("=", 1) for word in words(folder, f"{method} {SMALL}"))
    chosen = [f"{key}={value}" for key, value in given.items()]
    run = simulate([*chosen, f"out={tmp_path / 'run'}"])
    assert run.summary["status"] == "done"
    assert 0 <= run.summary["final"]["map50"] <= 1
    split = Split.load(tmp_path / "run" / "split.npz")
    everything = np.concatenate([split.train_index, split.server_index, split.validation_index])
    assert set(everything) == set(range(layouts.COUNTS["train"]))
    out = tmp_path / "boxes.csv"
    assert main(["predict", str(tmp_path / "run"), "--data", str(folder), "--out", str(out), "--score=0.0"]) == 0
    total = sum(layouts.COUNTS.values())
    assert f"boxes in {total} pictures in {out}" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "model.json").read_text())["class_names"] == list(layouts.NAMES)
