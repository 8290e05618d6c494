"""Tests of fedssl.data.sources.recordings."""

from __future__ import annotations

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.sources.recordings import RecordingsFile, read_recordings, read_windows


def arrays(**changes: object) -> dict[str, object]:
    given = {
        "signal": np.arange(200, dtype=np.int16).reshape(100, 2),
        "scale": np.array([0.5, 2.0]),
        "recording": np.array([[0, 40], [40, 100]], np.int32),
        "subject": np.array([1600, 1600], np.int16),
        "activity": np.array([1, 0], np.int8),
        "activities": np.array(["sit", "walk"]),
        "rate_hz": np.float32(20),
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "mine.npz")


def test_a_file_becomes_windows_in_physical_units(path):
    np.savez(path, **arrays())
    data = RecordingsFile(path=path, window=6, stride=6).read()
    assert data.class_names == ("sit", "walk")
    assert data.train.y.tolist() == [1] * 4 + [0] * 6
    assert data.test.y.tolist() == [1] * 2 + [0] * 3
    assert set(data.train.group) == {1600}
    np.testing.assert_array_equal(data.train.x[4], np.arange(80, 92).reshape(6, 2) * [0.5, 2.0])
    np.testing.assert_array_equal(data.test.x[0], np.arange(56, 68).reshape(6, 2) * [0.5, 2.0])
    assert data.rate_hz == 20


def test_scale_and_activities_may_be_absent(path):
    np.savez(path, **arrays(scale=None, activities=None, activity=np.array([2, -1])))
    found = read_recordings(path)
    assert found.scale.tolist() == [1, 1]
    assert found.activities == ("0", "1", "2")
    assert found.activity.tolist() == [2, -1]


def test_the_fingerprint_follows_content_and_options(path):
    np.savez(path, **arrays())
    first = RecordingsFile(path=path).fingerprint()
    assert RecordingsFile(path=path, window=31).fingerprint() != first
    np.savez(path, **arrays(subject=np.array([1600, 1601])))
    assert RecordingsFile(path=path).fingerprint() != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signal": None}, "`signal` is there"),
        ({"subject": None}, "`subject` is there"),
        ({"rate_hz": None}, "`rate_hz` is there"),
        ({"signal": np.zeros(5)}, r"`signal` is of shape \(rows, channels\), not \(5,\)"),
        ({"signal": np.full((100, 2), np.nan)}, "`signal` is of finite numbers"),
        ({"signal": np.full((100, 2), "a")}, "`signal` is of finite numbers"),
        ({"signal": np.full((100, 2), 1e39)}, r"`signal` is of numbers that float32 holds when scaled \(channel 0"),
        (
            {"signal": np.full((100, 2), -1e38), "scale": np.array([1.0, 4.0])},
            r"`signal` is of numbers that float32 holds when scaled \(channel 1",
        ),
        ({"scale": np.array([1.0, 1e39])}, "`scale` is of numbers that float32 holds"),
        ({"scale": np.array([1.0, 1e-60])}, "`scale` is of numbers that float32 holds"),
        ({"scale": np.ones(3)}, "`scale` is of 2 numbers above 0"),
        ({"scale": np.array([1.0, 0.0])}, "`scale` is of 2 numbers above 0"),
        ({"recording": np.array([0, 40])}, r"`recording` is of whole numbers \(n, 2\)"),
        ({"recording": np.array([[0, 40], [40, 101]])}, r"within 0\.\.100"),
        ({"recording": np.array([[40, 40], [40, 90]])}, r"within 0\.\.100"),
        ({"recording": np.array([[39, 90], [0, 40]])}, "share no row"),
        ({"subject": np.array([-1, 2])}, r"`subject` is in 0\.\..*, not -1 \(recording 0\)"),
        ({"subject": np.array([1])}, "`subject` is of 2 whole numbers"),
        ({"activity": np.array([0, 2])}, r"`activity` is in -1\.\.1, not 2 \(recording 1\)"),
        ({"activity": np.array([0.0, 1.0])}, "`activity` is of 2 whole numbers"),
        ({"activities": np.array(["sit", "sit"])}, "`activities` is of different texts"),
        ({"activities": np.array(["sit"])}, r"`activities` is of 2\.\.1000 names"),
        ({"rate_hz": -1}, "`rate_hz` is one number"),
    ],
)
def test_a_wrong_array_is_named(path, change, message):
    np.savez(path, **arrays(**change))
    with pytest.raises(ConfigError, match=rf"^data\.path=.*mine\.npz.*{message}"):
        read_recordings(path)


def test_a_file_that_is_none_is_refused(path, tmp_path):
    with pytest.raises(ConfigError, match="a file that exists"):
        RecordingsFile(path=path).fingerprint()
    (tmp_path / "mine.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ConfigError, match=r"a sound \.npz file"):
        RecordingsFile(path=path).read()
    np.savez(path, **arrays(signal=np.array([[{}]])))
    with pytest.raises(ConfigError, match=r"array `signal` cannot be read"):
        RecordingsFile(path=path).read()


def test_new_windows_need_a_signal_alone(path):
    np.savez(path, signal=np.arange(14.0).reshape(7, 2))
    names, found = read_windows(path, (3, 2), 20.0)
    assert names == ["0:0", "0:3"]
    np.testing.assert_array_equal(found, np.arange(12, dtype=np.float32).reshape(2, 3, 2))
