"""Tests of fedssl.data.sources.wisdm."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.sources.wisdm import ALL, SIX, WisdmSmall, WisdmWatch

REAL = Path(os.environ.get("FEDSSL_TEST_DATA", Path(__file__).parents[5] / "shared" / "data"))


def write(path: Path, names: tuple[str, ...], channels: int) -> None:
    """Two people, 1600 and 1601, each doing everything for 100 rows; every row says its activity."""
    count = 2 * len(names)
    activity = np.tile(np.arange(len(names)), 2)
    bounds = np.stack([np.arange(count) * 100, np.arange(1, count + 1) * 100], axis=1)
    signal = np.repeat(activity, 100)[:, None].repeat(channels, axis=1)
    subject = np.repeat([1600, 1601], len(names))
    np.savez(path, signal=signal, recording=bounds, subject=subject, activity=activity, activities=names, rate_hz=20)


def test_the_path_is_the_file_or_its_folder(tmp_path):
    write(tmp_path / "wisdm_small.npz", SIX, 3)
    by_folder = WisdmSmall(path=str(tmp_path), server_subjects=1)
    by_file = WisdmSmall(path=str(tmp_path / "wisdm_small.npz"), server_subjects=1)
    assert by_folder.fingerprint() == by_file.fingerprint()
    data = by_folder.read()
    assert data.class_names == SIX
    assert (data.name, data.server_groups, data.group_names) == ("wisdm_small", (1600,), ("1600", "1601"))
    assert [len(data.train), len(data.test)] == [24, 6]


def test_six_activities_keep_their_names(tmp_path):
    write(tmp_path / "wisdm_watch.npz", ALL, 6)
    everything, six = (
        WisdmWatch(path=str(tmp_path), server_subjects=1, activities=activities) for activities in ("all", "six")
    )
    assert everything.fingerprint() != six.fingerprint()
    data = six.read()
    assert data.class_names == SIX
    assert [ALL[int(value)] for value in data.train.x[:, 0, 0]] == [SIX[label] for label in data.train.y]
    assert len(data.train) == 24
    assert len(everything.read().train) == 72


def test_another_file_is_refused(tmp_path):
    write(tmp_path / "wisdm_watch.npz", SIX, 6)
    with pytest.raises(ConfigError, match=r"^data\.path=.*6 channels and the activities walking, jogging, .* typing"):
        WisdmWatch(path=str(tmp_path), server_subjects=1).read()
    with pytest.raises(ConfigError, match=r"^data\.path='': must be the file wisdm_small.npz, or its folder"):
        WisdmSmall().fingerprint()
    with pytest.raises(ConfigError, match=r"wisdm_small\.npz.*a file that exists"):
        WisdmSmall(path=str(tmp_path)).fingerprint()


@pytest.mark.skipif(not (REAL / "wisdm_small.npz").is_file(), reason="the real wisdm_small.npz is not here")
def test_the_real_small_set():
    data = WisdmSmall(path=str(REAL)).read()
    people = np.unique(data.train.group)
    assert people.tolist() == list(range(1600, 1651))
    assert data.server_groups == tuple(range(1600, 1609))
    assert np.unique(data.test.group).tolist() == list(range(1609, 1651))
    for person, train, test in ((1609, 48, 24), (1629, 48, 24)):
        assert np.bincount(data.train.y[data.train.group == person]).tolist() == [train] * 6
        assert np.bincount(data.test.y[data.test.group == person]).tolist() == [test] * 6
    for person, absent in ((1616, "jogging"), (1642, "stairs")):
        held = [set(samples.y[samples.group == person]) for samples in (data.train, data.test)]
        assert held == [set(range(6)) - {SIX.index(absent)}] * 2
    x = (data.train.x[data.train.group < 1609] - np.array(data.mean)) / np.array(data.std)
    assert x.reshape(-1, 3).std(axis=0) == pytest.approx([1 / 3] * 3, abs=1e-4)


@pytest.mark.skipif(not (REAL / "wisdm_watch.npz").is_file(), reason="the real wisdm_watch.npz is not here")
def test_the_real_watch_set():
    data = WisdmWatch(path=str(REAL)).read()
    assert data.shape == (30, 6)
    assert len(np.unique(data.train.group)) == 46
    assert len(np.unique(data.test.group)) == 37
    counts = np.bincount(data.train.y[data.train.group == 1610])
    assert [np.median(counts), np.median(np.bincount(data.test.y[data.test.group == 1610]))] == [72, 36]
