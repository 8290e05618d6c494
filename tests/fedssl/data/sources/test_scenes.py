"""Tests of fedssl.data.sources.scenes, roadsign and shapes_synthetic."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES, Dataset
from fedssl.data.boxes import GREY
from fedssl.data.cache import open_dataset
from fedssl.data.sources.roadsign import RoadSign
from fedssl.data.sources.scenes import cut_scenes
from fedssl.data.sources.shapes_synthetic import ShapesSynthetic, _form
from fedssl.data.sources.weather import WEATHERS, render

REAL = Path(os.environ.get("FEDSSL_TEST_DATA", Path(__file__).parents[5] / "shared" / "data"))


def shapes(**options) -> ShapesSynthetic:
    return ShapesSynthetic(**{"size": 32, "pictures": 48, "test_pictures": 6, **options})


def test_every_part_gets_whole_scenes_and_its_share_of_each_class():
    rng = np.random.default_rng(0)
    scene = np.repeat(np.arange(150), rng.integers(1, 9, 150))
    y = rng.choice(4, len(scene), p=[0.1, 0.1, 0.2, 0.6])
    shares = np.array([0.3, 0.25, 0.25, 0.2])
    part = cut_scenes(y, scene, shares, np.random.default_rng(1))
    for one in range(150):
        assert len(set(part[scene == one])) == 1
    found = np.bincount(part, minlength=4)
    assert np.abs(found - shares * len(scene)).max() < 8
    table = np.zeros((4, 4))
    np.add.at(table, (part, y), 1)
    assert np.abs(table - np.outer(shares, table.sum(axis=0))).max() < 8
    assert (cut_scenes(y, scene, shares, np.random.default_rng(1)) == part).all()
    assert (cut_scenes(y, scene, shares, np.random.default_rng(2)) != part).any()


def test_single_pictures_are_cut_exactly_and_those_without_boxes_too():
    y = np.repeat([-1, 0, 1], [20, 40, 60])
    part = cut_scenes(y, np.arange(120), np.array([0.5, 0.25, 0.25]), np.random.default_rng(0))
    table = np.zeros((3, 3), int)
    np.add.at(table, (part, y + 1), 1)
    assert table.tolist() == [[10, 20, 30], [5, 10, 15], [5, 10, 15]]


def test_parties_weathers_and_test_pictures():
    data = shapes(per_weather=2).read()
    assert data.group_names == ("server", "overcast 0", "rainy 0", "snowy 0", "overcast 1", "rainy 1", "snowy 1")
    assert (data.server_groups, data.domain_names) == ((0,), WEATHERS)
    assert np.bincount(data.train.group).tolist() == [16, 6, 6, 6, 6, 4, 4]
    assert (data.train.domain == np.array([0, 1, 2, 3, 1, 2, 3])[data.train.group]).all()
    assert data.test.group.tolist() == [-1] * 24
    assert data.test.domain.tolist() == np.repeat(np.arange(4), 6).tolist()
    for weather in range(1, 4):
        first, other = slice(0, 6), slice(6 * weather, 6 * weather + 6)
        assert (data.test.x[first] != data.test.x[other]).any(axis=(1, 2, 3)).all()
        for i in range(6):
            assert np.array_equal(data.test.boxes_of(i)[0], data.test.boxes_of(6 * weather + i)[0])
    assert (data.mean, data.std, data.shape) == ((0.0,) * 3, (1.0,) * 3, (32, 32, 3))


def test_iid_gives_every_party_all_weathers_alike():
    data = shapes(weather="iid").read()
    assert data.group_names == ("server", "client 0", "client 1", "client 2")
    for party in range(4):
        counts = np.bincount(data.train.domain[data.train.group == party], minlength=4)
        assert counts.max() - counts.min() <= 1
    same = shapes().read()
    assert (same.train.group == data.train.group).all()


def test_pictures_are_rendered_in_their_partys_weather_and_boxes_stay():
    plain, wet = shapes(severity=0.0).read(), shapes().read()
    assert np.array_equal(plain.train.boxes, wet.train.boxes)
    for i in (0, 7, 20):
        expected = render(plain.train.x[i], int(wet.train.domain[i]), 3.0, seed=0, image=i)
        assert np.array_equal(wet.train.x[i], expected)
    # Severity 0 is the same picture four times.
    assert (plain.test.x.reshape(4, 6, 32, 32, 3) == plain.test.x[:6]).all()


def test_the_same_options_give_the_same_bytes_and_others_do_not():
    first, again = shapes().read(), shapes().read()
    assert first.train.x.tobytes() == again.train.x.tobytes()
    assert first.key == again.key
    for other in ({"seed": 1}, {"severity": 2.0}, {"evaluate_on": "val"}, {"weather": "iid"}, {"per_weather": 2}):
        assert shapes(**other).fingerprint() != shapes().fingerprint()
    assert not np.array_equal(shapes(evaluate_on="val").read().test.x[:6], first.test.x[:6])


def test_forms_touch_the_sides_of_their_boxes():
    for kind in range(3):
        form = _form(kind, 16)
        rows, columns = np.flatnonzero(form.any(axis=1)), np.flatnonzero(form.any(axis=0))
        assert [rows[0], rows[-1], columns[0], columns[-1]] == [0, 15, 0, 15]
    data = shapes(severity=0.0).read()
    for i in range(20):
        xyxy, classes = data.train.boxes_of(i)
        assert 1 <= len(xyxy) <= 3
        assert ((xyxy >= 0) & (xyxy <= 32)).all()
        x1, y1, x2, y2 = xyxy[0].astype(int)
        inner = data.train.x[i, y1:y2, x1:x2][_form(int(classes[0]), x2 - x1)]
        assert len(np.unique(inner, axis=0)) == 1


def same(left: Dataset, right: Dataset) -> None:
    for part in ("train", "test"):
        for name in ("x", "y", "group", "boxes", "box_class", "box_offsets", "domain"):
            mine, other = getattr(getattr(left, part), name), getattr(getattr(right, part), name)
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype


def test_the_cache_keeps_boxes_and_domains(tmp_path, monkeypatch):
    source = shapes()
    first = source.read()
    open_dataset(source, tmp_path)
    monkeypatch.setattr(ShapesSynthetic, "read", lambda _: pytest.fail("drawn again"))
    found = open_dataset(source, tmp_path)
    same(found, first)
    assert (found.domain_names, found.server_groups) == (WEATHERS, (0,))


def test_the_cache_keeps_pictures_without_any_box(tmp_path):
    source = shapes()
    whole = source.read()
    nothing = {"boxes": whole.test.boxes[:0], "box_class": whole.test.box_class[:0]}
    test = replace(whole.test, **nothing, box_offsets=np.zeros_like(whole.test.box_offsets))

    class Empty(ShapesSynthetic):
        def read(self) -> Dataset:
            return replace(whole, test=test)

    open_dataset(Empty(size=32), tmp_path)
    found = open_dataset(Empty(size=32), tmp_path)
    assert found.test.holds_boxes
    assert len(found.test.boxes_of(3)[0]) == 0
    assert not np.asarray(found.test.box_offsets).any()


def write_roadsign(path: Path, **changes) -> None:
    """12 pictures of 20 x 10, two a scene, with one box each; 8 are for training, 2 validation, 2 test."""
    files = []
    for i in range(12):
        stream = io.BytesIO()
        Image.fromarray(np.full((20, 10, 3), 10 * i, np.uint8)).save(stream, "PNG")
        files.append(np.frombuffer(stream.getvalue(), np.uint8))
    arrays = {
        "bytes": np.concatenate(files),
        "offsets": np.cumsum([0, *map(len, files)]),
        "sizes": np.full((12, 2), (20, 10), np.int32),
        "boxes": np.tile(np.float32([1, 2, 5, 8]), (12, 1)),
        "box_labels": np.arange(12) // 2 % 4,
        "box_image": np.arange(12),
        "class_names": np.array(["trafficlight", "stop", "speedlimit", "crosswalk"]),
        "split": np.repeat([0, 1, 2], [8, 2, 2]).astype(np.int8),
        "group": np.arange(12) // 2,
    }
    np.savez(path, **{**arrays, **changes})


def test_photographs_are_fitted_into_squares(tmp_path):
    write_roadsign(tmp_path / "roadsign.npz")
    data = RoadSign(path=str(tmp_path), size=40, severity=0.0, server_share=0.25).read()
    assert [len(data.train), len(data.test)] == [8, 8]
    assert (data.train.x[3, :, 10:30] == 30).all()
    assert (data.train.x[:, :, :10] == GREY).all()
    assert data.train.boxes_of(0)[0].tolist() == [[12, 4, 20, 16]]
    assert np.bincount(data.train.group).tolist() == [2, 2, 2, 2]
    assert data.test.x[:, 0, 15, 0].tolist() == [100, 110] * 4
    scored = RoadSign(path=str(tmp_path / "roadsign.npz"), size=40, evaluate_on="val").read()
    assert scored.test.x[:2, 0, 15, 0].tolist() == [80, 90]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"boxes": np.tile(np.float32([5, 2, 5, 8]), (12, 1))},
            r"`boxes` is x1, y1, x2, y2 inside the picture \(row 0\)",
        ),
        ({"boxes": np.tile(np.float32([1, 2, 11, 8]), (12, 1))}, "`boxes` is x1, y1, x2, y2 inside the picture"),
        ({"box_labels": np.full(12, 4)}, r"`box_labels` is in 0\.\.3"),
        ({"box_image": np.arange(12)[::-1]}, "`box_image` never decreases"),
        ({"split": np.zeros(12, np.int8)}, "`split` has pictures of parts 0 and 2"),
        ({"group": np.arange(5)}, r"`group` is of shape \(12,\), not \(5,\)"),
        ({"sizes": np.full((12, 2), (21, 10))}, "picture 0 is of the size that `sizes` says"),
        ({"bytes": np.zeros(5000, np.uint8)}, "picture 0 is a sound WEBP or PNG image"),
        ({"class_names": np.array(["a", "b"])}, "`class_names` is trafficlight, stop"),
        ({"group": np.array([None] * 12)}, "`group` can be read"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(changes, message, tmp_path):
    write_roadsign(tmp_path / "roadsign.npz", **changes)
    with pytest.raises(ConfigError, match=r"^data\.path=.*" + message) as error:
        RoadSign(path=str(tmp_path), size=40).read()
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.path='': must be the file roadsign.npz, or its folder"):
        RoadSign().fingerprint()
    with pytest.raises(ConfigError, match=r"roadsign\.npz.*a file that exists"):
        RoadSign(path=str(tmp_path)).fingerprint()
    with pytest.raises(ConfigError, match=r"^data\.weather='wet'"):
        SOURCES.create({"name": "roadsign", "weather": "wet"})


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "roadsign.npz").is_file(), reason="the real roadsign.npz is not here")
def test_the_real_photographs():
    source = RoadSign(path=str(REAL), size=64)
    data = source.read()
    assert [len(data.train), len(data.test)] == [613, 4 * 174]
    assert np.bincount(data.train.group).tolist() == [184, 143, 143, 143]
    with np.load(REAL / "roadsign.npz", allow_pickle=False) as content:
        scene = content["group"][content["split"] == 0]
    parties = [set(scene[data.train.group == party]) for party in range(4)]
    assert sum(map(len, parties)) == len(set(scene))
    for party in range(4):
        _, classes, _ = data.train.boxes_at(np.flatnonzero(data.train.group == party))
        assert (np.bincount(classes, minlength=4) > 0).all()
    assert np.bincount(data.train.box_class).tolist() == [122, 64, 548, 142]
    assert np.bincount(data.test.box_class).tolist() == [4 * 30, 4 * 18, 4 * 159, 4 * 38]
    twelve = replace(source, per_weather=4)._parties(data.train.y, scene)
    assert np.abs(np.bincount(twelve)[1:] - 429.1 / 12).max() < 21
    table = np.zeros((13, 4))
    np.add.at(table, (twelve, data.train.y), 1)
    assert (table > 0).all()
