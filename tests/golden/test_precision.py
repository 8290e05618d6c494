"""Every method's golden run in bfloat16: it learns as in float32, up to rounding."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import toys
from test_golden import FOLDER, NAMES, OPTIONS, setting

LOOSE = 0.15
"""Absolute difference of a mean training loss per unit of it, over three rounds in bfloat16."""


@pytest.mark.parametrize("name", NAMES)
def test_the_training_loss_in_bf16_follows_that_in_fp32(name: str, tmp_path: Path):
    """With weights that were cast once a visit, the loss of the second and third round runs away."""
    chosen = toys.experiment(method={"name": name, **OPTIONS.get(name, {})}, precision="bf16", **setting(name))
    toys.run(chosen, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    losses = [key for key in stored[0]["train"] if key.startswith(("loss", "server_loss", "reconstruction"))]
    assert losses
    for new, old in zip(records, stored, strict=True):
        for key in losses:
            if key in old["train"] and math.isfinite(old["train"][key]):
                assert new["train"][key] == pytest.approx(old["train"][key], rel=LOOSE, abs=LOOSE), (new["round"], key)
