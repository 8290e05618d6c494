"""Tests of fedssl.predict.detector: boxes in pixels of the pictures themselves, as a table and drawn."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedssl.config import ConfigError
from fedssl.metrics.detection import FlatBoxes
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.predict import detector
from fedssl.predict.detector import BoxPredictor, draw, predict_files
from fedssl.predict.load import load
from fedssl.predict.model_file import Meta, save_model
from fedssl.rng import Rng
from fedssl.tasks.detection import found

CHOICE = {"name": "detector", "width": 2, "depths": [1, 1, 1, 1], "neck_depth": 1}
META = Meta((64, 64, 3), ("stop", "sign"), (0.0,) * 3, (1.0,) * 3, task="detection")


def saved(directory: Path) -> torch.nn.Module:
    model = build_model(MODELS.create(CHOICE), META.shape, 2, Rng(1).torch("init")).eval()
    save_model(directory, CHOICE, model.state_dict(), {}, {"name": "none"}, meta=META)
    return model


def pictures(*shapes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def test_a_detector_saved_and_loaded_finds_what_the_model_finds(tmp_path):
    model = saved(tmp_path)
    predict = load(tmp_path)
    assert isinstance(predict, BoxPredictor)
    given = pictures((64, 64), (64, 64))
    boxes = predict(given, 0.0)
    with torch.no_grad():
        expected = found(model, torch.from_numpy(np.stack(given)).permute(0, 3, 1, 2).float() / 255, 0.001)
    assert len(expected.label) > 0
    np.testing.assert_array_equal(boxes.offsets, expected.offsets)
    np.testing.assert_array_equal(boxes.label, expected.label)
    np.testing.assert_allclose(boxes.xyxy, expected.xyxy.clip(0, 64), atol=1e-3)
    sure = float(np.median(expected.score))
    assert (predict(given, sure).score >= sure).all()
    assert len(predict(given, sure).label) == (expected.score >= sure).sum()
    assert len(predict([])) == 0


def test_boxes_are_mapped_back_into_a_picture_of_another_shape(tmp_path, monkeypatch):
    saved(tmp_path)
    # 200 high, 100 wide: fitted as 64 x 32, so scaled by 0.32, with grey bars of 16 left and right.
    inside = np.array([[16, 0, 48, 64], [24, 16, 32, 32], [0, -5, 64, 70]], np.float32)
    said = FlatBoxes(inside, np.array([0, 1, 0]), np.array([0, 3]), np.array([0.9, 0.8, 0.7], np.float32))
    seen = []
    monkeypatch.setattr("fedssl.tasks.detection.found", lambda model, x: seen.append(x) or said)
    boxes = load(tmp_path)(pictures((200, 100)))
    np.testing.assert_allclose(boxes.xyxy, [[0, 0, 100, 200], [25, 50, 50, 100], [0, 0, 100, 200]], atol=1e-4)
    assert seen[0].shape == (1, 3, 64, 64)
    np.testing.assert_allclose(seen[0][0, :, :, :16], 114 / 255)


def test_what_is_no_picture_is_refused(tmp_path):
    saved(tmp_path)
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), "a.png"):
        with pytest.raises(ConfigError, match=r"pictures=.*uint8 arrays"):
            load(tmp_path)([wrong])


def fixed(monkeypatch) -> None:
    """Let every picture have a box of class 1 at (10, 10, 30, 20) of the square of 64, and a doubtful one."""

    def made(model, x):
        xyxy = np.tile(np.array([[10, 10, 30, 20], [0, 0, 5, 5]], np.float32), (len(x), 1))
        score = np.tile(np.array([0.9, 0.2], np.float32), len(x))
        return FlatBoxes(xyxy, np.tile([1, 0], len(x)), 2 * np.arange(len(x) + 1), score)

    monkeypatch.setattr("fedssl.tasks.detection.found", made)


def test_a_folder_gives_a_line_a_box_and_drawings(tmp_path, monkeypatch):
    saved(tmp_path)
    fixed(monkeypatch)
    monkeypatch.setattr(detector, "_BATCH", 2)
    data, drawn = tmp_path / "photos", tmp_path / "drawn"
    (data / "sub").mkdir(parents=True)
    for name in ("b.png", "sub/a.png", "sub/c.png"):
        Image.new("RGB", (128, 128), (90, 90, 90)).save(data / name)
    counts = predict_files(load(tmp_path), data, tmp_path / "out.csv", drawn)
    assert counts == (3, 3)
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == list(detector.COLUMNS)
    assert table[1] == ["b.png", "1", "sign", "0.900000", "20.00", "20.00", "60.00", "40.00"]
    assert [row[0] for row in table[1:]] == ["b.png", "sub/a.png", "sub/c.png"]
    shown = np.asarray(Image.open(drawn / "sub" / "a.png.png"))
    assert shown.shape == (128, 128, 3)
    assert (shown[30, 20] != 90).any()
    assert (shown[30, 25] == 90).all()
    assert (shown[100:, 100:] == 90).all()


def test_an_npz_and_a_lower_score(tmp_path, monkeypatch):
    saved(tmp_path)
    fixed(monkeypatch)
    np.savez(tmp_path / "new.npz", x=np.zeros((3, 64, 64, 3), np.uint8))
    assert predict_files(load(tmp_path), tmp_path / "new.npz", tmp_path / "out.csv", None, 0.1) == (3, 6)
    names = [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert names == ["0", "0", "1", "1", "2", "2"]


def test_a_label_stays_inside_the_picture_and_the_surest_box_is_on_top():
    black = np.zeros((60, 200, 3), np.uint8)
    boxes = FlatBoxes(
        np.array([[0, 0, 199, 59], [0, 0, 199, 59]], np.float32),
        np.array([0, 1]),
        np.array([0, 2]),
        np.array([0.9, 0.3], np.float32),
    )
    shown = np.asarray(draw(black, boxes, ("stop", "sign")))
    blue = tuple(int("0072B2"[i : i + 2], 16) for i in (0, 2, 4))
    assert tuple(shown[59, 150]) == blue
    assert (black == 0).all()


def photos(tmp_path: Path, *names: str) -> Path:
    data = tmp_path / "photos"
    data.mkdir()
    for name in names:
        Image.new("RGB", (64, 64), (90, 90, 90)).save(data / name)
    return data


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("drawn", ["photos", "photos/drawn", ".", "link", "photos/../photos"])
@pytest.mark.parametrize("data", ["photos", "photos/a.png"])
def test_drawings_go_apart_from_the_pictures(tmp_path, monkeypatch, data, drawn):
    saved(tmp_path)
    fixed(monkeypatch)
    photos(tmp_path, "a.png", "b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    before = contents(tmp_path)
    if (data, drawn) == ("photos/a.png", "photos/drawn"):
        predict_files(load(tmp_path), tmp_path / data, tmp_path / "out.csv", tmp_path / drawn)
        assert contents(tmp_path).keys() - before.keys() == {
            tmp_path / "out.csv",
            tmp_path / "photos" / "drawn" / "a.png.png",
        }
        return
    with pytest.raises(ConfigError, match=r"^--draw=.*: must be a folder apart from --data="):
        predict_files(load(tmp_path), tmp_path / data, tmp_path / "out.csv", tmp_path / drawn)
    assert contents(tmp_path) == before


def test_drawings_of_pictures_with_one_stem_are_kept_apart_and_never_replaced(tmp_path, monkeypatch):
    saved(tmp_path)
    fixed(monkeypatch)
    data, drawn = photos(tmp_path, "a.jpg", "a.png", "b.png"), tmp_path / "drawn"
    assert predict_files(load(tmp_path), data, tmp_path / "out.csv", drawn) == (3, 3)
    assert sorted(path.name for path in drawn.iterdir()) == ["a.jpg.png", "a.png.png", "b.png.png"]
    for name in ("a.jpg.png", "a.png.png"):
        (drawn / name).unlink()
    (drawn / "b.png.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"^--draw=.*b\.png\.png'\)?: must be a drawing that does not exist yet"):
        predict_files(load(tmp_path), data, tmp_path / "other.csv", drawn)
    assert contents(drawn) == {drawn / "b.png.png": b"mine"}
    assert not (tmp_path / "other.csv").exists()


def test_what_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    saved(tmp_path)
    fixed(monkeypatch)
    data = photos(tmp_path, "a.png")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^--draw=.*: must be a file that can be written \(Not a directory\)$"):
        predict_files(load(tmp_path), data, tmp_path / "out.csv", tmp_path / "file" / "drawn")
    with pytest.raises(ConfigError, match=r"^--out=.*: must be a file that can be written \(No such file .*\)$"):
        predict_files(load(tmp_path), data, tmp_path / "missing" / "out.csv", None)


def test_a_name_that_is_no_utf_8_is_written_with_its_bytes_and_drawn(tmp_path, monkeypatch):
    saved(tmp_path)
    fixed(monkeypatch)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(pictures((64, 64))[0]).save(folder / "a.png")
    os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    predict_files(load(tmp_path), folder, tmp_path / "out.csv", tmp_path / "drawn")
    assert list(csv.reader((tmp_path / "out.csv").read_text("utf-8").splitlines()))[1][0] == r"caf\xe9.png"
    assert os.listdir(os.fsencode(tmp_path) + b"/drawn") == [b"caf\xe9.png.png"]
