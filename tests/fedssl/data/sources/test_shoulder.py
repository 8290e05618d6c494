"""Tests of fedssl.data.sources.shoulder."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import numpy as np
import pytest

from fedssl.config import ConfigError
from fedssl.data.sources.shoulder import Shoulder, recordings_of


def test_the_packages_lists_become_recordings():
    rows = [np.full((5, 6), 1.0), np.full((3, 6), 2.0)]
    found = recordings_of({"X": rows, "y": [1, 0], "subject": np.array([4.0, 2.0]), "y_labels": ["ABD", "IR"]})
    assert found.bounds.tolist() == [[0, 5], [5, 8]]
    assert found.signal[:, 0].tolist() == [1] * 5 + [2] * 3
    assert found.subject.tolist() == [4, 2]
    assert found.activity.tolist() == [1, 0]
    assert found.activities == ("ABD", "IR")


def test_without_the_package_the_extra_is_named(monkeypatch):
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(ConfigError, match=r"^data='seglearn': must be installed: pip install 'fedssl\[sensors\]'"):
        Shoulder().fingerprint()


@pytest.mark.skipif(importlib.util.find_spec("seglearn") is None, reason="seglearn is not installed")
def test_the_real_exercises():
    data = Shoulder().read()
    assert data.shape == (100, 6)
    assert data.server_groups == (1, 2, 3)
    assert np.unique(data.test.group).tolist() == list(range(4, 11))
    assert data.class_names == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
