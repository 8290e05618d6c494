"""Tests of fedssl.data.sources.windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.sources.windows import Recordings, Windowed, moments, time_split, windows


@dataclass
class Given(Windowed):
    name = "given"

    def fingerprint(self) -> str:
        return self.choices()

    def read(self):
        raise NotImplementedError


def recordings(lengths=(100, 53, 100, 100), subject=(7, 7, 3, 9), activity=(0, 1, 0, 1), channels=2) -> Recordings:
    """Rows that say their own number: row r is (r, -r, ...)."""
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1], dtype=np.float32)
    signal = np.stack([rows if channel % 2 == 0 else -rows for channel in range(channels)], axis=1)
    bounds = np.stack([ends - lengths, ends], axis=1)
    one = np.ones(channels, np.float32)
    return Recordings("here", signal, one, bounds, np.array(subject), np.array(activity), ("walk", "sit"), 20.0)


@pytest.mark.parametrize(
    ("length", "train_rows", "test_rows", "train", "test"), [(3605, 2163, 1081, 72, 36), (2400, 1440, 720, 48, 24)]
)
def test_a_recording_begins_as_training_rows_and_ends_as_test_rows(length, train_rows, test_rows, train, test):
    end, begin = time_split(length, 0.6, 0.1)
    assert (end, length - begin) == (train_rows, test_rows)
    rows = np.zeros((length, 3))
    assert [len(windows(part, 30, 30)) for part in (rows, rows[:end], rows[begin:])] == [length // 30, train, test]


@pytest.mark.parametrize(("train_share", "gap"), [(0.6, 0.1), (0.7, 0.0), (0.35, 0.35), (0.1, 0.2)])
def test_the_gap_is_never_shorter_than_asked_and_the_parts_lose_less_than_a_row(train_share, gap):
    for length in range(1, 600):
        end, begin = time_split(length, train_share, gap)
        assert 0 <= end <= begin <= length
        assert begin - end >= gap * length - 1e-6
        assert end > train_share * length - 1
        assert length - begin > (1 - train_share - gap) * length - 1


def test_windows_are_consecutive_rows():
    rows = np.arange(14).reshape(7, 2)
    assert windows(rows, 4, 2).tolist() == [rows[0:4].tolist(), rows[2:6].tolist()]
    assert windows(rows, 7, 1).tolist() == [rows.tolist()]
    assert windows(rows, 8, 1).shape == (0, 8, 2)


@pytest.mark.parametrize("stride", [2, 5])
def test_no_row_is_in_training_and_test_and_no_window_crosses_a_border(stride):
    given = recordings()
    data = Given(window=5, stride=stride).cut(given)
    first = data.train.x[:, :1, 0]
    assert np.array_equal(data.train.x, np.stack([first + np.arange(5), -first - np.arange(5)], axis=2))
    seen = [set(samples.x[:, :, 0].astype(int).ravel()) for samples in (data.train, data.test)]
    assert not seen[0] & seen[1]
    for samples in (data.train, data.test):
        start = samples.x[:, 0, 0].astype(int)
        of = np.searchsorted(given.bounds[:, 1], start, side="right")
        assert (samples.x[:, -1, 0].astype(int) < given.bounds[of, 1]).all()
        assert samples.y.tolist() == given.activity[of].tolist()
        assert samples.group.tolist() == given.subject[of].tolist()
    for start, stop in given.bounds:
        mine = [sorted(row for row in rows if start <= row < stop) for rows in seen]
        assert mine[1][0] - mine[0][-1] - 1 >= 0.1 * (stop - start) - 1


def test_the_lowest_ids_are_the_servers_and_statistics_are_theirs():
    data = Given(window=5, stride=5, server_subjects=1).cut(recordings())
    assert data.server_groups == (3,)
    assert data.group_names == ("3", "7", "9")
    assert set(data.test.group) == {7, 9}
    assert set(data.train.group) == {3, 7, 9}
    rows = np.arange(153, 213)  # the first 60 of the recording that begins at row 153
    assert data.mean == pytest.approx((rows.mean(), -rows.mean()))
    assert data.std == pytest.approx((3 * rows.std(), 3 * rows.std()))
    assert (data.limit, data.rate_hz, data.shape) == (1.0, 20.0, (5, 2))
    plain = Given(window=5, stride=5, server_subjects=1, scaling="zscore").cut(recordings())
    assert plain.std == pytest.approx((rows.std(), rows.std()))
    assert plain.limit == 0.0


def test_without_a_server_statistics_are_of_all_training_windows():
    data = Given(window=10, stride=10).cut(recordings(lengths=(100, 50, 100, 100)))
    rows = np.concatenate(
        [np.arange(start, start + size) for start, size in ((0, 60), (100, 30), (150, 60), (250, 60))]
    )
    assert data.server_groups == ()
    assert data.mean == pytest.approx((rows.mean(), -rows.mean()))


def test_moments_of_a_channel_that_never_moves():
    x = np.zeros((2, 2, 2), np.float32)
    x[:, :, 0] = [[1, 3], [5, 7]]
    x[:, :, 1] = 4
    assert moments(x) == ((4.0, 4.0), (pytest.approx(5**0.5), 1.0))


def test_what_never_moves_depends_on_the_channels_own_magnitude():
    # Standard deviation of -1, 1, -1, 1 is 1; of a pressure in Pa, 0.05; of what is one float32 number, 0.
    x = np.array([[-1e-7, 101325 - 0.05, 9.81e3], [1e-7, 101325 + 0.05, 9.81e3]] * 2, np.float32)[None]
    _, std = moments(x)
    assert std == (pytest.approx(1e-7), pytest.approx(0.05, rel=0.1), 1.0)


def test_scale_gives_physical_units():
    given = replace(recordings(), scale=np.array([0.5, 2.0], np.float32))
    plain, scaled = Given(window=5).cut(recordings()), Given(window=5).cut(given)
    np.testing.assert_array_equal(scaled.train.x, plain.train.x * np.array([0.5, 2.0], np.float32))
    assert scaled.train.x.dtype == np.float32
    assert scaled.train.x.flags.c_contiguous


def test_unknown_activities_are_trained_on_and_not_tested():
    data = Given(window=5).cut(recordings(activity=(0, 1, -1, 1)))
    assert set(data.train.group[data.train.y == -1]) == {3}
    assert set(data.test.y) == {0, 1}
    assert set(data.test.group) == {7, 9}


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"gap": 0.4}, {}, r"^data\.gap=0\.4: must be below 0\.4"),
        ({"server_subjects": 3}, {}, r"^data\.server_subjects=3: must be at most 2: .* of 3 people"),
        ({"window": 61}, {}, r"^data\.window=61: .*100 rows, gives no training window"),
        ({"window": 31}, {}, r"^data\.window=31: .*100 rows, gives no test window"),
        ({}, {"activity": (1, 1, 1, 1)}, r"^data\.path='here': .*at least 2 activities"),
    ],
)
def test_what_leaves_too_little_is_refused(options, given, message):
    with pytest.raises(ConfigError, match=message):
        Given(**options).cut(recordings(**given))


def test_every_option_is_in_the_fingerprint():
    base = Given()
    changes = ({"window": 31}, {"stride": 31}, {"server_subjects": 1}, {"scaling": "zscore"}, {"train_share": 0.5})
    texts = {base.choices(), replace(base, gap=0.2).choices(), *(replace(base, **one).choices() for one in changes)}
    assert len(texts) == 7
