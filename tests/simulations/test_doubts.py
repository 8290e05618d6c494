"""What a run is warned of before it begins: it can run, but hardly learn."""

from __future__ import annotations

import pytest

from simulations.compose import check, compose_experiment
from simulations.run import prepare

BLIND = "model.weights is empty: the stages that stay frozen are random; `auto` pre-trains them"
BACKBONES = "method.selective_rounds=15 of rounds=15: clients never train neck and head"
UNTOLD = "no client has a labelled sample, and method={} learns from these; see labels"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("method=fedavg data=digits model=mlp labels=none", [UNTOLD.format("fedavg")]),
        ("method=fixmatch data=digits model=mlp labels=none", [UNTOLD.format("fixmatch")]),
        ("method=fedavg data=digits model=mlp labels=client_count", []),
        ("method=fedossl model.width=4 model.weights=", [BLIND]),
        ("method=fedsto data.pictures=36 data.test_pictures=4 data.size=64 rounds=16", []),
        ("method=fedsto data.pictures=36 data.test_pictures=4 data.size=64 rounds=15", [BACKBONES]),
    ],
)
def test_doubts_are_told(words: str, wanted: list[str]) -> None:
    assert prepare(check(compose_experiment(words.split()))) == wanted
