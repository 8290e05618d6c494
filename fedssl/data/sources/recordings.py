"""Recordings of sensors from a .npz file: `data=recordings data.path=FILE`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.arrays import MAX_CLASSES
from fedssl.data.base import Dataset, register
from fedssl.data.checks import is_cast
from fedssl.data.sources.npz import file_sha256
from fedssl.data.sources.windows import Floats, Ints, Recordings, Windowed, names_of, windows
from fedssl.files import expanded

_SIGNAL = ("signal", "recording", "scale", "rate_hz")
_PEOPLE = ("subject", "activity", "activities")
_MAX_CHANNELS = 512


@dataclass(frozen=True)
class Signals:
    """The rows of a file: see `Recordings`."""

    signal: NDArray[Any]
    scale: Floats
    bounds: Ints
    rate_hz: float


@register("recordings")
@dataclass
class RecordingsFile(Windowed):
    """A .npz file of sensor recordings: `signal`, `recording`, `subject`, `activity`, `rate_hz`.

    And perhaps `scale` and `activities`.
    """

    path: str = option("", "the .npz file", path=True)

    def fingerprint(self) -> str:
        """Return the hash of the file and what else decides the windows."""
        return f"{file_sha256(self.path)} {self.choices()}"

    def read(self) -> Dataset:
        """Check the file and cut it."""
        return self.cut(read_recordings(self.path))


def read_recordings(path: str) -> Recordings:
    """Return the checked recordings of a file. Raises ConfigError on `data.path` that names the array."""
    file_sha256(path)
    arrays = _load("data.path", path, (*_SIGNAL, *_PEOPLE))
    found = _signals("data.path", path, arrays)
    for name in ("recording", "subject", "activity", "rate_hz"):
        if name not in arrays:
            raise _refuse("data.path", path, name, "there")
    count = len(found.bounds)
    names = _activities(path, arrays)
    highest = (len(names) if names else MAX_CLASSES) - 1
    subject = _whole(path, "subject", arrays["subject"], count, 0, int(np.iinfo(np.int64).max))
    activity = _whole(path, "activity", arrays["activity"], count, -1, highest)
    names = names or names_of(range(int(activity.max()) + 1))
    return Recordings(path, found.signal, found.scale, found.bounds, subject, activity, names, found.rate_hz)


def read_windows(path: str | Path, shape: Sequence[int], rate_hz: float = 0.0) -> tuple[list[str], Floats]:
    """Return names and windows (n, steps, channels), in physical units, of the recordings in a .npz file.

    Windows do not overlap; the name is RECORDING:ROW, the window's first row in `signal`. Without `recording` the
    signal is one. `rate_hz`: the rate that is asked for, 0 = any. Raises ConfigError on `data`.
    """
    found = _signals("data", str(path), _load("data", str(path), _SIGNAL))
    steps, channels = shape
    if found.signal.shape[1] != channels:
        raise _refuse("data", str(path), "signal", f"of {channels} channels, not {found.signal.shape[1]}")
    if rate_hz and found.rate_hz and not np.isclose(rate_hz, found.rate_hz, rtol=0.01):
        raise _refuse("data", str(path), "rate_hz", f"{rate_hz:g}, as the model was trained, not {found.rate_hz:g}")
    parts, names = [], []
    for number, (start, stop) in enumerate(found.bounds):
        parts.append(windows(found.signal[start:stop], steps, steps))
        names += [f"{number}:{start + i * steps}" for i in range(len(parts[-1]))]
    if not names:
        raise _refuse("data", str(path), "signal", f"long enough: no recording has {steps} rows")
    return names, np.ascontiguousarray(np.concatenate(parts), np.float32) * found.scale


def _load(field: str, path: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    name = names[0]
    # A file from outside breaks numpy's reader in many ways; each must end as one clear line.
    try:
        with expanded(path).open("rb") as file, np.load(file, allow_pickle=False) as content:
            for name in names:
                if name in content:
                    arrays[name] = np.asarray(content[name])
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(field, path, f"a sound .npz file; array `{name}` cannot be read ({reason})") from None
    if "signal" not in arrays:
        raise _refuse(field, path, "signal", "there")
    return arrays


def _signals(field: str, path: str, arrays: dict[str, NDArray[Any]]) -> Signals:
    signal = arrays["signal"]
    if signal.ndim != 2 or not len(signal) or not 1 <= signal.shape[1] <= _MAX_CHANNELS:
        raise _refuse(field, path, "signal", f"of shape (rows, channels), not {signal.shape}")
    if signal.dtype.kind not in "iuf" or not np.isfinite(signal).all():
        raise _refuse(field, path, "signal", f"of finite numbers ({signal.dtype})")
    scale = np.asarray(arrays.get("scale", np.ones(signal.shape[1])))
    if scale.shape != signal.shape[1:] or scale.dtype.kind not in "iuf" or not (np.isfinite(scale) & (scale > 0)).all():
        raise _refuse(field, path, "scale", f"of {signal.shape[1]} numbers above 0, one a channel")
    scale = _scaled_to_float32(field, path, signal, scale)
    bounds = np.asarray(arrays.get("recording", np.array([[0, len(signal)]])))
    if bounds.ndim != 2 or bounds.shape[1] != 2 or not len(bounds) or bounds.dtype.kind not in "iu":
        raise _refuse(field, path, "recording", f"of whole numbers (n, 2), not {bounds.dtype} {bounds.shape}")
    bounds = bounds.astype(np.int64)
    ordered = bounds[np.argsort(bounds[:, 0])]
    if (bounds[:, 0] >= bounds[:, 1]).any() or ordered[0, 0] < 0 or ordered[-1, 1] > len(signal):
        raise _refuse(field, path, "recording", f"of first row and end of each, within 0..{len(signal)}")
    if (ordered[1:, 0] < ordered[:-1, 1]).any():
        raise _refuse(field, path, "recording", "of recordings that share no row")
    rate = np.asarray(arrays.get("rate_hz", 0.0))
    if rate.size != 1 or rate.dtype.kind not in "iuf" or not np.isfinite(rate).all() or rate < 0:
        raise _refuse(field, path, "rate_hz", "one number, the rows a second")
    return Signals(signal, scale, bounds, float(rate.reshape(())))


def _scaled_to_float32(field: str, path: str, signal: NDArray[Any], scale: NDArray[Any]) -> Floats:
    """Return the scale in float32. Raises ConfigError if it, or the signal times it, does not fit."""
    with np.errstate(over="ignore", under="ignore"):
        single = scale.astype(np.float32)
        ends = np.stack([signal.min(axis=0), signal.max(axis=0)]).astype(np.float32) * single
    if not (np.isfinite(single) & (single > 0)).all():
        raise _refuse(field, path, "scale", "of numbers that float32 holds")
    if not np.isfinite(ends).all():
        channel = int((~np.isfinite(ends)).any(axis=0).argmax())
        raise _refuse(
            field, path, "signal", f"of numbers that float32 holds when scaled (channel {channel} has others)"
        )
    return single


def _activities(path: str, arrays: dict[str, NDArray[Any]]) -> tuple[str, ...]:
    if "activities" not in arrays:
        return ()
    given = arrays["activities"]
    if given.ndim != 1 or given.dtype.kind != "U" or len(set(given.tolist())) != len(given):
        raise _refuse("data.path", path, "activities", "of different texts, shape (k,)")
    if not 2 <= len(given) <= MAX_CLASSES:
        raise _refuse("data.path", path, "activities", f"of 2..{MAX_CLASSES} names")
    return tuple(str(text) for text in given)


def _whole(path: str, name: str, values: NDArray[Any], count: int, low: int, high: int) -> Ints:
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise _refuse("data.path", path, name, f"of {count} whole numbers, one a recording")
    if low < 0 and is_cast(values):
        allowed = f"signed where -1 means unknown: {values.max()} in {values.dtype} is -1 cast"
        raise _refuse("data.path", path, name, allowed)
    wrong = (values < low) | (values > high)
    if wrong.any():
        where = int(wrong.argmax())
        raise _refuse("data.path", path, name, f"in {low}..{high}, not {int(values[where])} (recording {where})")
    return values.astype(np.int64)


def _refuse(field: str, path: str, name: str, allowed: str) -> ConfigError:
    return ConfigError(field, path, f"a .npz file whose array `{name}` is {allowed}")
