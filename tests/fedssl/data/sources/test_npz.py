from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES
from fedssl.data.sources.npz import Npz

X = np.arange(20 * 8 * 9, dtype=np.uint8).reshape(20, 8, 9)
Y = np.repeat([0, 1], 10)


def written(folder: Path, **arrays: object) -> Npz:
    path = folder / "data.npz"
    np.savez(path, **{"x_train": X, "y_train": Y, **arrays})
    return Npz(path=str(path))


def test_a_file_without_test_arrays_is_split_class_by_class(tmp_path):
    source = written(tmp_path, y_train=np.where(np.arange(20) == 3, -1, Y))
    data = source.read()
    assert (len(data.train), len(data.test)) == (16, 4)
    np.testing.assert_array_equal(np.bincount(data.test.y), [2, 2])
    assert (data.train.y == -1).sum() == 1
    both = np.concatenate([data.train.x, data.test.x]).reshape(20, -1)
    assert {row.tobytes() for row in both} == {row.tobytes() for row in X}
    np.testing.assert_array_equal(source.read().test.x, data.test.x)
    assert data.shape == (8, 9, 1)
    assert data.class_names == ("0", "1")


def test_mean_and_std_are_of_the_training_pixels(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    colour[..., 2] = 51
    data = written(tmp_path, x_train=colour, x_test=colour[:3], y_test=Y[:3]).read()
    values = colour.reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.std[:2], values.std(axis=0)[:2], rtol=1e-12)
    assert data.std[2] == 1e-3


def test_floats_raw_names_class_names_and_groups_are_understood(tmp_path):
    path = tmp_path / "raw.npz"
    np.savez(
        path,
        train_images=X / 255.0,
        train_labels=Y.astype(np.uint8),
        test_images=X[:2],
        test_labels=Y[9:11],
        class_names=np.array(["cat", "dog", "cow"]),
        group_train=np.arange(20),
    )
    data = Npz(path=str(path)).read()
    np.testing.assert_array_equal(data.train.x[..., 0], X)
    assert data.class_names == ("cat", "dog", "cow")
    np.testing.assert_array_equal(data.train.group, np.arange(20))
    np.testing.assert_array_equal(data.test.group, [-1, -1])


NAN = np.where(np.arange(X.size).reshape(X.shape) == 7, np.nan, X / 255.0)
BAD = {
    "object": ({"x_train": np.array([[1], [2, 3]], object)}, "x_train"),
    "nan": ({"x_train": NAN}, "x_train"),
    "infinite": ({"x_train": np.where(np.isnan(NAN), np.inf, NAN)}, "x_train"),
    "above one": ({"x_train": X * 1.5}, "x_train"),
    "integers": ({"x_train": X.astype(np.int32)}, "x_train"),
    "flat": ({"x_train": X.reshape(20, -1)}, "x_train"),
    "channels": ({"x_train": np.zeros((20, 8, 8, 2), np.uint8)}, "x_train"),
    "small": ({"x_train": X[:, :7]}, "x_train"),
    "large": ({"x_train": np.zeros((20, 8, 97), np.uint8)}, "x_train"),
    "empty": ({"x_train": X[:0], "y_train": Y[:0]}, "x_train"),
    "lengths": ({"y_train": Y[:-1]}, "y_train"),
    "too negative": ({"y_train": Y - 2}, "y_train"),
    "too high": ({"class_names": np.array(["a", "b"]), "y_train": Y + 1}, "y_train"),
    "absurd": ({"y_train": Y + 10**9}, "y_train"),
    "fractions": ({"y_train": Y + 0.5}, "y_train"),
    "matrix": ({"y_train": Y[:, None]}, "y_train"),
    "no labels": ({"y_train": np.full(20, -1), "x_test": X, "y_test": Y}, "y_train"),
    "one class": ({"y_train": np.zeros(20, int)}, "y_train"),
    "shapes": ({"x_test": X.transpose(0, 2, 1), "y_test": Y}, "x_test"),
    "test unlabelled": ({"x_test": X, "y_test": np.full(20, -1)}, "y_test"),
    "half a test": ({"x_test": X}, "y_test"),
    "names": ({"class_names": np.array(["a", "a"])}, "class_names"),
    "groups": ({"group_train": np.zeros(3, int)}, "group_train"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_arrays_are_refused_by_name_in_one_line(case, tmp_path):
    arrays, name = BAD[case]
    source = written(tmp_path, **arrays)
    with pytest.raises(ConfigError, match=f"^data.path=.*`{name}`") as error:
        source.read()
    assert "\n" not in str(error.value)


def test_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X)
    with pytest.raises(ConfigError, match="`y_train`"):
        Npz(path=str(tmp_path / "a.npz")).read()


def test_unreadable_files_are_refused(tmp_path):
    good = Path(written(tmp_path).path).read_bytes()
    middle = good.index(X.tobytes()[:64])
    flipped = good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :]
    for content in (b"", b"hello", good[: len(good) // 2], good[:-30], flipped):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ConfigError, match=r"^data\.path="):
            Npz(path=str(tmp_path / "bad.npz")).read()
    for path in ("", str(tmp_path), str(tmp_path / "none.npz")):
        with pytest.raises(ConfigError, match=r"^data\.path="):
            Npz(path=path).fingerprint()


def test_fingerprint_follows_content_and_share_alone(tmp_path):
    source = written(tmp_path)
    first = source.fingerprint()
    moved = tmp_path / "moved.npz"
    moved.write_bytes(Path(source.path).read_bytes())
    assert Npz(path=str(moved)).fingerprint() == first
    assert Npz(path=str(moved), test_share=0.5).fingerprint() != first
    assert written(tmp_path, y_train=Y[::-1]).fingerprint() != first


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [("fashion_small", (28, 28, 1), (5000, 1000)), ("digits", (8, 8, 1), (1438, 359))],
)
def test_shipped_sources(name, shape, sizes):
    data = SOURCES.create({"name": name}).read()
    assert data.shape == shape
    assert (len(data.train), len(data.test)) == sizes
    assert data.num_classes == 10
    assert data.train.x.max() == 255
    assert data.train.x.min() == 0
    if name == "fashion_small":
        np.testing.assert_array_equal(np.bincount(data.train.y), np.full(10, 500))
        assert data.class_names[9] == "Ankle boot"
