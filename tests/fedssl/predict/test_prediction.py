from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fedssl.assembly import ALLOW_CODE
from fedssl.config import ConfigError
from fedssl.data.base import Dataset, Samples
from fedssl.data.views.augment import normalise
from fedssl.data.views.modality import model_input
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.predict.classifier import read_samples, write_predictions
from fedssl.predict.images import read_images
from fedssl.predict.load import load
from fedssl.predict.model_file import Meta, save_model
from fedssl.rng import Rng

CHOICE = {"name": "resnet", "width": 2}
META = Meta((10, 8, 1), ("cat", "dog", "owl"), (0.4,), (0.3,))


def saved(directory, calibration=None, extra=None):
    model = build_model(MODELS.create(CHOICE), META.shape, 3, Rng(1).torch("init")).eval()
    choice = calibration or {"name": "none"}
    save_model(directory, CHOICE, model.state_dict(), extra or {}, choice, meta=META)
    return model


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 10, 8, 1), np.uint8)


def test_the_loaded_model_answers_as_the_saved_one_with_its_temperature(tmp_path, images):
    extra = {"temperature": torch.tensor(0.25, dtype=torch.float64)}
    model = saved(tmp_path, {"name": "temperature"}, extra)
    predict = load(tmp_path)
    labels, confidences = predict(images)
    with torch.no_grad():
        logits = model(normalise(torch.from_numpy(images), META.mean, META.std)).logits
    expected, best = torch.softmax(logits / 0.25, dim=1).max(dim=1)
    assert labels.tolist() == best.tolist()
    np.testing.assert_array_equal(confidences, expected.numpy())
    assert predict.meta == META
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


OWN = """
from dataclasses import dataclass
from fedssl.models.base import register
from fedssl.models.specs import MLPSpec

@register("own_of_the_run")
@dataclass
class Own(MLPSpec):
    pass
"""


def test_a_model_of_the_runs_own_code_needs_leave(tmp_path, images, monkeypatch):
    model = build_model(MODELS.create({"name": "mlp"}), META.shape, 3, Rng(1).torch("init"))
    save_model(tmp_path, {"name": "own_of_the_run"}, model.state_dict(), {}, {"name": "none"}, meta=META)
    monkeypatch.delenv(ALLOW_CODE, raising=False)
    for config in ({}, {"method_source": "", "method_file": ""}):
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="model='own_of_the_run': must be one of"):
            load(tmp_path)
    (tmp_path / "config.yaml").write_text(json.dumps({"method_source": OWN, "method_file": "own.py"}))
    with pytest.raises(ConfigError, match=f"{ALLOW_CODE}=1 runs the method file"):
        load(tmp_path)
    monkeypatch.setenv(ALLOW_CODE, "1")
    monkeypatch.setattr(MODELS, "_values", dict(MODELS._values))
    assert load(tmp_path)(images)[0].shape == (7,)


def test_grey_images_need_no_channel_axis_and_read_only_ones_do_not_warn(tmp_path, images):
    saved(tmp_path)
    predict = load(tmp_path)
    images.setflags(write=False)
    np.testing.assert_array_equal(predict(images[..., 0])[1], predict(images)[1])
    assert predict(images[:0])[0].shape == (0,)


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 10, 1), np.uint8), np.zeros((2, 10, 8, 1)), np.zeros(3, np.uint8)])
def test_other_shapes_and_types_are_refused(tmp_path, wrong):
    saved(tmp_path)
    with pytest.raises(ConfigError, match="must be uint8 nx10x8x1"):
        load(tmp_path)(wrong)


def test_a_directory_without_a_whole_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="run directory"):
        load(tmp_path)
    saved(tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**described, "sha256": "0"}))
    with pytest.raises(ConfigError, match="belongs to"):
        load(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ConfigError, match="format 1"):
        load(tmp_path)


def test_a_model_whose_parts_stay_elsewhere_is_refused(tmp_path):
    model = build_model(MODELS.create(CHOICE), META.shape, 3, Rng(1).torch("init"))
    save_model(
        tmp_path, CHOICE, model.state_dict(), {}, {"name": "none"}, meta=META, partial="heads stay at the clients"
    )
    with pytest.raises(ConfigError, match=r"^predict=.*one whole model; of this one, heads stay"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["x", "images", "x_test", "test_images"])
def test_npz_rows_are_named_by_number(tmp_path, images, name):
    path = tmp_path / "new.npz"
    np.savez(path, y=np.zeros(7), **{name: images[..., 0]})
    names, found = read_images(path, META.shape)
    assert names == [str(row) for row in range(7)]
    np.testing.assert_array_equal(found, images)


def test_files_and_folders_are_converted_to_the_models_shape(tmp_path, images):
    (tmp_path / "sub").mkdir()
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "b.png")
    Image.new("RGB", (16, 20), (90, 90, 90)).save(tmp_path / "sub" / "a.png")
    (tmp_path / "note.txt").write_text("not an image")
    names, found = read_images(tmp_path, META.shape)
    assert names == ["b.png", "sub/a.png"]
    np.testing.assert_array_equal(found[0], images[0])
    assert found[1].shape == META.shape
    assert (found[1] == 90).all()
    alone = read_images(tmp_path / "b.png", META.shape)
    assert alone[0] == ["b.png"]
    np.testing.assert_array_equal(alone[1], images[:1])


def test_unreadable_data_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no zip")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    for name in ("other.npz", "broken.npz", "broken.png", "empty", "missing"):
        with pytest.raises(ConfigError, match=rf"data=.*{name}"):
            read_images(tmp_path / name, META.shape)


def test_predictions_are_one_row_an_image(tmp_path):
    path = tmp_path / "out.csv"
    write_predictions(path, ["a,1", "b"], np.array([2, 0]), np.array([0.5, 0.25], np.float32), META.class_names)
    assert path.read_text().splitlines() == [
        "name,label,class_name,confidence",
        '"a,1",2,owl,0.500000',
        "b,0,cat,0.250000",
    ]


def test_damaged_archives_and_huge_pictures_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 256, (50, 10, 8), np.uint8))
    whole = bytearray(path.read_bytes())
    for offset, change in ((200, b"\xff" * 64), (8, b"\x63\x00")):
        damaged = whole.copy()
        damaged[offset : offset + len(change)] = change
        if offset == 8:  # the method of compression stands in the central directory as well
            place = damaged.index(b"PK\x01\x02") + 10
            damaged[place : place + 2] = change
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"damaged.npz.*a readable .npz"):
            read_images(path, META.shape)
    Image.new("L", (20, 20)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ConfigError, match=r"huge.png.*a readable image"):
        read_images(tmp_path / "huge.png", META.shape)


def test_a_model_json_without_a_hash_is_refused(tmp_path):
    saved(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="belongs to"):
        load(tmp_path)


SENSOR = Meta((8, 2), ("sit", "walk"), (1.0, 2.0), (3.0, 6.0), 1.0, 20.0)


def saved_sensor(directory):
    choice = {"name": "mlp", "hidden": 5, "layers": 1}
    model = build_model(MODELS.create(choice), SENSOR.shape, 2, Rng(1).torch("init")).eval()
    save_model(directory, choice, model.state_dict(), {}, {"name": "none"}, meta=SENSOR)
    return model


def test_a_sensor_model_labels_each_window_of_recordings(tmp_path):
    model = saved_sensor(tmp_path)
    signal = np.random.default_rng(0).integers(-9, 9, (30, 2)).astype(np.int16)
    scale = np.array([0.5, 2], np.float32)
    np.savez(tmp_path / "new.npz", signal=signal, scale=scale, recording=[[0, 17], [19, 27]], rate_hz=20)
    predict = load(tmp_path)
    names, windows = read_samples(tmp_path / "new.npz", predict.meta)
    assert names == ["0:0", "0:8", "1:19"]
    np.testing.assert_array_equal(windows, np.stack([signal[a : a + 8] * scale for a in (0, 8, 19)]))
    labels, confidences = predict(windows)
    with torch.no_grad():
        x = model_input(torch.from_numpy(windows), SENSOR.mean, SENSOR.std, 1.0)
        expected, best = torch.softmax(model(x).logits, dim=1).max(dim=1)
    assert labels.tolist() == best.tolist()
    np.testing.assert_array_equal(confidences, expected.numpy())
    assert predict.meta == SENSOR
    np.testing.assert_array_equal(predict(windows.astype(np.float64))[0], labels)


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 3)), np.zeros((2, 8, 2, 1)), np.full((1, 8, 2), np.nan)])
def test_other_windows_are_refused(tmp_path, wrong):
    saved_sensor(tmp_path)
    with pytest.raises(ConfigError, match="must be finite numbers nx8x2"):
        load(tmp_path)(wrong)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"signal": np.zeros((8, 3))}, "of 2 channels, not 3"),
        ({"signal": np.zeros((8, 2)), "rate_hz": 50}, "`rate_hz` is 20, as the model was trained, not 50"),
        ({"signal": np.zeros((3, 2))}, "no recording has 8 rows"),
        ({"x": np.zeros((8, 2))}, "array `signal` is there"),
    ],
)
def test_recordings_that_do_not_fit_the_model_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "new.npz", **arrays)
    with pytest.raises(ConfigError, match=rf"^data=.*new\.npz.*{message}"):
        read_samples(tmp_path / "new.npz", SENSOR)


def test_meta_of_a_data_set_and_of_an_older_run(tmp_path):
    x = np.zeros((1, 8, 2), np.float32)
    samples = Samples(x, np.zeros(1, np.int64), np.zeros(1, np.int64))
    dataset = Dataset("d", samples, samples, ("sit", "walk"), (1.0, 2.0), (3.0, 6.0), "key", limit=1.0, rate_hz=20.0)
    assert Meta.of(dataset) == SENSOR
    saved(tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    assert (described.pop("limit"), described.pop("rate_hz")) == (0.0, 0.0)
    (tmp_path / "model.json").write_text(json.dumps(described))
    assert load(tmp_path).meta == META


def test_the_old_name_loads_for_one_version_and_says_so():
    sys.modules.pop("fedssl.predictor", None)
    with pytest.deprecated_call(match=r"fedssl\.predict\.load"):
        from fedssl import predictor
    assert predictor.load is load


def test_hidden_files_of_a_folder_are_passed_over(tmp_path):
    folder = tmp_path / ".cache" / "photos"
    for place in ("", "__MACOSX", ".thumbnails", "sub"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / "._a.png").write_bytes(b"\x00\x05\x16\x07")
        (folder / place / "Thumbs.db").write_bytes(b"x")
    for place in ("a.png", "__MACOSX/b.png", ".thumbnails/c.png", "sub/d.png"):
        Image.new("L", (8, 10)).save(folder / place)
    (folder / "folder.png").mkdir()
    assert read_images(folder, META.shape)[0] == ["a.png", "sub/d.png"]


def test_a_name_that_is_no_utf_8_is_written_with_its_bytes(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (8, 10)).save(folder / "a.png")
    os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    names, _ = read_images(folder, META.shape)
    write_predictions(tmp_path / "out.csv", names, np.array([0]), np.array([0.5], np.float32), META.class_names)
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines()[1] == r"caf\xe9.png,0,cat,0.500000"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_image_file_is_the_same_as_in_8_bits(tmp_path, images, suffix):
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / f"8.{suffix}")
    Image.fromarray(images[0, :, :, 0].astype(np.uint16) * 257).save(tmp_path / f"16.{suffix}")
    _, found = read_images(tmp_path, META.shape)
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(found[1], images[0])


def test_an_image_without_a_known_range_is_refused_by_name(tmp_path, images):
    Image.fromarray(images[0, :, :, 0].astype(np.float32)).save(tmp_path / "hdr.tif")
    with pytest.raises(ConfigError, match=r"data='.*hdr\.tif': must be a readable image \(floats are read in 0\.\.1\)"):
        read_images(tmp_path, META.shape)
