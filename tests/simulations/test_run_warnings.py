"""What a run is warned of before it begins: it can run, but hardly learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import pictures

from simulations.compose import check, compose_experiment
from simulations.run import prepare

BLIND = "model.weights is empty: the stages that stay frozen are random; `auto` pre-trains them"
BACKBONES = "method.selective_rounds=15 of rounds=15: clients never train neck and head"
ALONE = "the server has one domain, so that weights have nothing to learn: personalization.aggregate=finetune"
USELESS = "aggregation={} has no effect: method={} takes no average of the clients"
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
        ("method=semipfl method.domains=1", [ALONE]),
        ("method=semipfl method.domains=1 personalization.aggregate=finetune", []),
        ("method=semipfl method.domains=2", []),
        ("method=semipfl method.domains=2 aggregation=FedAdam", [USELESS.format("FedAdam", "semipfl")]),
        ("method=server_only aggregation=FedMedian", [USELESS.format("FedMedian", "server_only")]),
        ("method=fedavg data=digits model=mlp aggregation=FedMedian", []),
        (
            "method=fedsto data.pictures=36 data.test_pictures=4 data.size=64 clients=2",
            ["8 training samples are with nobody"],
        ),
    ],
)
def test_choices_that_hardly_learn_are_warned_of(words: str, wanted: list[str]) -> None:
    assert prepare(check(compose_experiment(words.split()))) == wanted


def test_labels_that_a_partition_withholds_are_told(tmp_path: Path) -> None:
    y = np.arange(300) % 4
    for name, unlabelled in (("all", 0), ("some", 150)):
        y[:unlabelled] = -1
        np.savez(tmp_path / f"{name}.npz", x_train=np.zeros((300, 28, 28), np.uint8), y_train=y)
    told = "partition=open_world withholds labels of the classes that are to be unseen; another partition keeps all"
    for words, wanted in (
        (f"data.path={tmp_path}/some.npz", True),
        (f"data.path={tmp_path}/some.npz partition=iid", False),
        (f"data.path={tmp_path}/all.npz", False),
    ):
        chosen = f"method=orca data=npz labels=asis clients=3 model.weights= {words}".split()
        found = prepare(check(compose_experiment(chosen)))
        assert any(line.startswith(told) for line in found) is wanted


def test_a_partition_that_overrides_a_table_is_told(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "classes.txt").write_text("car\n")
    (tmp_path / "labels").mkdir()
    for name in "abghi":
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    words = f"method=fedsto data=yolo data.path={tmp_path} data.size=64 clients=2".split()
    for name, wanted in (("iid", ["partition=iid deals out anew what the table gives to clients"]), ("natural", [])):
        found = prepare(check(compose_experiment([*words, f"partition={name}"])))
        assert [line for line in found if line.startswith("partition")] == wanted
