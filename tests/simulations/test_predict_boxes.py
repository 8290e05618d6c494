"""Tests of `fedssl predict` with a detector."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fedssl.config import ConfigError
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.predict import detector
from fedssl.predict.model_file import Meta, save_model
from fedssl.rng import Rng
from simulations.commands import predict


@pytest.fixture
def run(tmp_path, monkeypatch):
    def saved(choice, shape, task):
        meta = Meta(shape, ("stop", "sign"), (0.0,) * 3, (1.0,) * 3, task=task)
        model = build_model(MODELS.create(choice), shape, 2, Rng(1).torch("init"))
        save_model(tmp_path, choice, model.state_dict(), {}, {"name": "none"}, meta=meta)
        return str(tmp_path)

    np.savez(tmp_path / "new.npz", x=np.full((2, 64, 64, 3), 90, np.uint8))
    monkeypatch.chdir(tmp_path)
    return saved


DETECTOR = {"name": "detector", "width": 2}


def test_boxes_are_written_and_drawn(run, tmp_path, capsys):
    directory = run(DETECTOR, (64, 64, 3), "detection")
    data = str(tmp_path / "new.npz")
    assert predict([directory, "--data", data, "--score", "0.001", "--draw", str(tmp_path / "drawn")]) == 0
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert rows[0] == "name,label,class_name,confidence,left,top,right,bottom"
    assert len(rows) > 1
    assert capsys.readouterr().out.startswith(f"{len(rows) - 1} boxes in 2 pictures in ")
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png"]
    assert predict([directory, "--data", data, "--score=1"]) == 0
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--score", "two"], r"^--score='two': must be a number in 0..1"),
        (["--score", "1.5"], r"^--score='1.5': must be a number in 0..1"),
        (["--score"], r"^--score='': must be followed by a number"),
        (["--draw", "new.npz"], r"^--draw=.*new.npz': must be a folder"),
        (["--out", "."], r"^--out=.*must be a file in a folder that exists"),
        (["--out", "street.png"], r"^--out=.*must be a name that ends in .csv"),
    ],
)
def test_bad_words_are_refused_before_anything_is_read(run, tmp_path, words, message):
    directory = run(DETECTOR, (64, 64, 3), "detection")
    with pytest.raises(ConfigError, match=message):
        predict([directory, "--data", "missing", *words])


def test_a_classifier_has_no_boxes_to_draw(run):
    directory = run({"name": "mlp", "hidden": 3, "layers": 1}, (64, 64, 3), "")
    with pytest.raises(ConfigError, match=r"^--draw='x': must be left out"):
        predict([directory, "--data", "new.npz", "--draw", "x"])


def test_the_user_s_own_pictures_are_never_drawn_over(run, tmp_path):
    directory = run(DETECTOR, (64, 64, 3), "detection")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (64, 64), (90, 90, 90)).save(photos / "a.png")
    before = (photos / "a.png").read_bytes()
    words = [directory, "--data", "photos", "--out", "p.csv", "--score", "0"]
    with pytest.raises(ConfigError, match=r"^--draw='photos': must be a folder apart from --data=photos$"):
        predict([*words, "--draw", "photos"])
    assert [path.name for path in photos.iterdir()] == ["a.png"]
    assert (photos / "a.png").read_bytes() == before
    assert not (tmp_path / "p.csv").exists()


def test_a_damaged_picture_leaves_no_drawing_of_those_before_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(detector, "_BATCH", 1)
    directory = run(DETECTOR, (64, 64, 3), "detection")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "ab":
        Image.new("RGB", (64, 64), (90, 90, 90)).save(photos / f"{name}.png")
    words = [directory, "--data", "photos", "--out", "p.csv", "--draw", "drawn"]
    content = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(content[:20])
    with pytest.raises(ConfigError, match=r"b\.png"):
        predict(words)
    assert list((tmp_path / "drawn").iterdir()) == []
    assert not (tmp_path / "p.csv").exists()
    (photos / "b.png").write_bytes(content)
    assert predict(words) == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png.png", "b.png.png"]
