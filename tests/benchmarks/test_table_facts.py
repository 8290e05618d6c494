"""What is written beside a published table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest


def test_a_file_that_was_another_for_earlier_rows_keeps_both_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    published = importlib.import_module("published")
    weights = tmp_path / "first.safetensors"
    found = []
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        published.describe(tmp_path / "table.csv", "python made.py", [weights])
        found.append(json.loads((tmp_path / "table.json").read_text())["data_sha256"]["first.safetensors"])
    one, two = found[1]
    assert one.startswith("7692c3ad3540bb80")
    assert two.startswith("3fc4ccfe745870e2")
    assert found == [[one], [one, two], [one, two]]
