from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedssl.config import ConfigError
from fedssl.data.sources.cifar import CIFAR10_NAMES
from fedssl.data.sources.cinic import Cinic10


def picture(label: int, number: int) -> np.ndarray:
    return np.random.default_rng(10 * label + number).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, first, count in (("train", 0, 3), ("test", 3, 1)):
        for label, name in enumerate(CIFAR10_NAMES):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(first, first + count):
                Image.fromarray(picture(label, number)).save(tmp_path / split / name / f"{9 - number}.png")
    return tmp_path


def test_pictures_come_by_class_and_file_name(folder):
    data = Cinic10(path=str(folder)).read()
    expected = [picture(label, number) for label in range(10) for number in (2, 1, 0)]
    np.testing.assert_array_equal(data.train.x, expected)
    np.testing.assert_array_equal(data.train.y, np.repeat(np.arange(10), 3))
    np.testing.assert_array_equal(data.test.x, [picture(label, 3) for label in range(10)])
    some = Cinic10(path=str(folder), per_class=2).read()
    np.testing.assert_array_equal(some.train.x, [each for row, each in enumerate(expected) if row % 3 < 2])


def test_hidden_files_are_passed_over(folder):
    before = Cinic10(path=str(folder)).fingerprint()
    (folder / "train" / "ship" / "._9.png").write_bytes(b"\x00\x05\x16\x07")
    assert Cinic10(path=str(folder)).fingerprint() == before
    assert len(Cinic10(path=str(folder)).read().train) == 30


def test_the_fingerprint_follows_the_names_and_options(folder):
    before = Cinic10(path=str(folder)).fingerprint()
    assert Cinic10(path=str(folder), per_class=1).fingerprint() != before
    (folder / "test" / "ship" / "6.png").rename(folder / "test" / "ship" / "7.png")
    assert Cinic10(path=str(folder)).fingerprint() != before


def test_missing_and_bad_pictures_are_one_clear_line(folder):
    with pytest.raises(ConfigError, match=r"^data\.path='': .*; train/airplane has no picture$"):
        Cinic10().fingerprint()
    Image.fromarray(picture(0, 0)[:8]).save(folder / "train" / "frog" / "9.png")
    with pytest.raises(ConfigError, match=r"whose train/frog/9\.png is 32 x 32, not 32 x 8$"):
        Cinic10(path=str(folder)).read()
    (folder / "train" / "frog" / "9.png").write_bytes(b"PNG")
    with pytest.raises(ConfigError, match=r"whose train/frog/9\.png is a sound WEBP or PNG image \("):
        Cinic10(path=str(folder)).read()
    for file in (folder / "test" / "cat").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"; test/cat has no picture$"):
        Cinic10(path=str(folder)).fingerprint()
