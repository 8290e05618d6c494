from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedssl.config import ConfigError
from fedssl.data.arrays import first_of_each
from fedssl.data.base import SOURCES
from fedssl.data.sources.cifar import CIFAR10_NAMES, TEST_FILE, TRAIN_FILES, Cifar10, Cifar100

REAL = Path(os.environ.get("FEDSSL_TEST_DATA", Path(__file__).parents[5] / "shared" / "data"))
PER_FILE = 20


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (PER_FILE, 32, 32, 3), dtype=np.uint8)


def encoded(x: np.ndarray, format_: str = "WEBP") -> dict[str, np.ndarray]:
    files = []
    for picture in x:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format_, lossless=True)
        files.append(buffer.getvalue())
    return {
        "bytes": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.arange(len(x)) // 2,
        "class_names": np.array(CIFAR10_NAMES),
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, name in enumerate((*TRAIN_FILES, TEST_FILE)):
        np.savez(tmp_path / name, **encoded(pixels(number)))
    return tmp_path


def test_parts_are_read_in_order_with_the_pixels_that_went_in(folder):
    data = Cifar10(path=str(folder)).read()
    np.testing.assert_array_equal(data.train.x, np.concatenate([pixels(number) for number in range(5)]))
    np.testing.assert_array_equal(data.train.y, np.tile(np.arange(20) // 2, 5))
    np.testing.assert_array_equal(data.test.x, pixels(5))
    assert data.class_names == CIFAR10_NAMES
    assert data.train.x.flags.c_contiguous
    assert (data.train.group == -1).all()


def test_per_class_keeps_the_first_of_each_class_and_all_of_the_test_split(folder):
    data = Cifar10(path=str(folder), per_class=3).read()
    # Each file has two pictures of each class, so the third comes from the second file.
    expected = np.concatenate([pixels(0), pixels(1)[::2]])
    np.testing.assert_array_equal(data.train.x, expected)
    np.testing.assert_array_equal(np.bincount(data.train.y), [3] * 10)
    assert len(data.test) == 20
    assert first_of_each(np.array([1, 0, 1, 1, 2]), 2).tolist() == [0, 1, 2, 4]
    assert first_of_each(np.array([-1, 0, -1]), 2).tolist() == [1]
    assert first_of_each(np.array([1, 0, 1]), 0).tolist() == [0, 1, 2]


def test_the_fingerprint_follows_content_and_options_and_not_the_place(folder, tmp_path_factory):
    before = Cifar10(path=str(folder)).fingerprint()
    copy = tmp_path_factory.mktemp("copy")
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert Cifar10(path=str(copy)).fingerprint() == before
    assert Cifar10(path=str(folder), per_class=2).fingerprint() != before
    np.savez(folder / TRAIN_FILES[2], **encoded(pixels(9)))
    assert Cifar10(path=str(folder)).fingerprint() != before


GOOD = encoded(pixels(0))
UP_AND_DOWN = GOOD["offsets"].copy()
UP_AND_DOWN[5] = UP_AND_DOWN[7]
BAD = {
    "object bytes": ({"bytes": np.array([b"a", None], object)}, "array `bytes` cannot be read"),
    "float bytes": ({"bytes": GOOD["bytes"].astype(float)}, "array `bytes` is uint8"),
    "offsets down": ({"offsets": UP_AND_DOWN}, "array `offsets` grows from 0"),
    "offsets beyond": ({"offsets": GOOD["offsets"] + 1}, "array `offsets` grows from 0"),
    "offsets short": ({"offsets": GOOD["offsets"][:-1]}, "array `offsets` is of 21 whole numbers"),
    "offsets float": ({"offsets": GOOD["offsets"] * 1.0}, "array `offsets` is of 21 whole numbers"),
    "label high": ({"labels": GOOD["labels"] + 1}, r"array `labels` is in 0..9, not 10 \(picture 18\)"),
    "label negative": ({"labels": GOOD["labels"] - 1}, r"array `labels` is in 0..9, not -1 \(picture 0\)"),
    "label text": ({"labels": np.array(["cat"] * 20)}, "array `labels` is of whole numbers"),
    "no labels": ({"labels": GOOD["labels"][:0]}, "array `labels` is of whole numbers"),
    "names": ({"class_names": np.array(CIFAR10_NAMES[::-1])}, "array `class_names` is airplane"),
    "no picture": ({"bytes": GOOD["bytes"][::-1]}, "picture 0 is a sound WEBP or PNG image"),
    "size": (encoded(pixels(0)[:, :16]), "picture 0 is 32 x 32, not 32 x 16"),
    "gif": (encoded(pixels(0), "GIF"), "picture 0 is a sound WEBP or PNG image"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_array_is_one_line_that_names_file_and_array(folder, case):
    changed, message = BAD[case]
    np.savez(folder / TRAIN_FILES[1], **{**GOOD, **changed})
    with pytest.raises(ConfigError, match=message) as caught:
        Cifar10(path=str(folder)).read()
    assert caught.value.field == "data.path"
    assert "\n" not in str(caught.value)
    assert f"a folder whose {TRAIN_FILES[1]} is a" in str(caught.value)


@pytest.mark.parametrize("name", ["bytes", "offsets", "labels", "class_names"])
def test_a_missing_array_is_named(folder, name):
    np.savez(folder / TEST_FILE, **{key: value for key, value in GOOD.items() if key != name})
    with pytest.raises(ConfigError, match=f"array `{name}` cannot be read"):
        Cifar10(path=str(folder)).read()


def test_a_truncated_file_is_refused_before_anything_is_decoded(folder):
    file = folder / TRAIN_FILES[3]
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=rf"^data\.path=.*whose {TRAIN_FILES[3]} is a sound \.npz file"):
        Cifar10(path=str(folder)).fingerprint()
    with pytest.raises(ConfigError, match=r"is a sound \.npz file"):
        Cifar10(path=str(folder)).read()


def test_a_flipped_bit_is_found(folder):
    file = folder / TRAIN_FILES[0]
    content = bytearray(file.read_bytes())
    content[2000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="array `bytes` cannot be read"):
        Cifar10(path=str(folder)).read()


@pytest.mark.parametrize("name", [*TRAIN_FILES, TEST_FILE])
def test_all_six_files_must_be_there(folder, name):
    (folder / name).unlink()
    for ask in (Cifar10(path=str(folder)).fingerprint, Cifar10(path=str(folder)).read):
        with pytest.raises(ConfigError, match=rf"^data\.path=.*cifar10_train_1of5.*; {re.escape(name)} is missing$"):
            ask()


@pytest.mark.parametrize(("source", "layout"), [(Cifar10, "cifar-10-batches-py"), (Cifar100, "cifar-100-python")])
def test_absent_and_damaged_folders_are_one_clear_line(source, layout, tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("", str(tmp_path / "nowhere"), str(tmp_path), str(tmp_path / "file")):
        with pytest.raises(ConfigError, match=rf"^data\.path=.*`{layout}`, which data\.download=true fetches"):
            source(path=path).fingerprint()
    (tmp_path / layout).mkdir()
    assert source(path=str(tmp_path)).fingerprint() == "torchvision per_class=0"
    (tmp_path / layout / "data_batch_1").write_bytes(b"no pickle of the published MD5")
    with pytest.raises(ConfigError, match=r"^data\.path=.*; this one is damaged"):
        source(path=str(tmp_path)).read()


def test_torchvision_layout_gives_its_pictures_in_order(tmp_path, monkeypatch):
    class Published:
        classes = CIFAR10_NAMES

        def __init__(self, root, train, download):
            assert (root, download) == (tmp_path, False)
            self.data = pixels(0 if train else 1)
            self.targets = (np.arange(PER_FILE) % 10).tolist()

    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setattr("torchvision.datasets.CIFAR10", Published)
    data = SOURCES.create({"name": "cifar10", "path": str(tmp_path), "per_class": 1}).read()
    np.testing.assert_array_equal(data.train.x, pixels(0)[:10])
    np.testing.assert_array_equal(data.test.x, pixels(1))
    np.testing.assert_array_equal(data.test.y, np.arange(PER_FILE) % 10)


def test_a_failed_download_names_the_option(tmp_path, monkeypatch):
    def fail(root, train, download):
        assert download
        raise OSError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.CIFAR100", fail)
    source = Cifar100(path=str(tmp_path), download=True)
    assert source.fingerprint() == "torchvision per_class=0"
    with pytest.raises(ConfigError, match=r"^data\.download=True: .*\(no route to host\)"):
        source.read()


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / TEST_FILE).is_file(), reason="the real CIFAR-10 files are not here")
def test_the_real_pictures_have_the_published_pixels():
    data = Cifar10(path=str(REAL)).read()
    assert data.train.x.shape == (50000, 32, 32, 3)
    digests = [hashlib.sha256(samples.x.tobytes()).hexdigest() for samples in (data.train, data.test)]
    assert digests == [
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ]
    np.testing.assert_array_equal(np.bincount(data.train.y), [5000] * 10)
    np.testing.assert_array_equal(np.bincount(data.test.y), [1000] * 10)
    np.testing.assert_allclose(np.multiply(data.mean, 255), [125.307, 122.950, 113.865], atol=5e-4)
