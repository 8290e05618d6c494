"""Tests of how detectors are scored at the server and at clients."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toys

from clients.app import _scores
from fedssl.assembly import Components
from fedssl.calibration.base import CALIBRATIONS
from fedssl.data.base import SOURCES
from fedssl.federation import ServerState
from fedssl.methods.base import METHODS
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.models.networks.detector import Decoded
from fedssl.partition.base import LABELS, PARTITIONS
from fedssl.partition.client_data import ClientDataFactory
from fedssl.partition.split import make_split
from fedssl.personalization.base import PERSONALIZATIONS, Personal
from fedssl.rng import Rng
from fedssl.tasks.base import TASKS
from server.evaluation import Scorer

CHOICE = {"name": "detector", "width": 2}


class Oracle(torch.nn.Module):
    """Finds the true boxes of the test pictures, none in those of one weather; its one weight decides which."""

    def __init__(self, samples) -> None:
        super().__init__()
        self.samples = samples
        self.known = torch.from_numpy(samples.x).flatten(1).double().sum(dim=1)
        self.blind = torch.nn.Parameter(torch.tensor(-1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums = (x.permute(0, 2, 3, 1) * 255).round().flatten(1).double().sum(dim=1)
        return (sums[:, None] == self.known).double().argmax(dim=1)

    def decode(self, rows: torch.Tensor) -> Decoded:
        boxes, objectness, classes = (torch.zeros(len(rows), 4, *rest) for rest in ((4,), (), (3,)))
        for place, row in enumerate(rows.tolist()):
            xyxy, kind = self.samples.boxes_of(row)
            boxes[place, : len(kind)] = torch.from_numpy(xyxy)
            objectness[place, : len(kind)] = float(self.samples.domain[row] != int(self.blind))
            classes[place, range(len(kind)), kind] = 1.0
        return Decoded(boxes, objectness, classes)


@pytest.fixture(scope="module")
def held():
    source = SOURCES.create({"name": "shapes_synthetic", "size": 64, "pictures": 24, "test_pictures": 6})
    dataset = source.read()
    partition, labels = PARTITIONS.create({"name": "natural"}), LABELS.create({"name": "client_rate", "rate": 0.0})
    return dataset, make_split(dataset, partition, labels, 3, 0.2, seed=0)


def parts() -> Components:
    return Components(
        METHODS.create({"name": "toy"}),
        TASKS.create({"name": "detection"}),
        CALIBRATIONS.create({"name": "none"}),
        PERSONALIZATIONS.create({"name": "none"}),
    )


def scorer(held, model, **evaluation) -> Scorer:
    return Scorer(toys.experiment(evaluation=evaluation), *held, parts(), model)


def test_a_perfect_detector_that_is_blind_in_one_weather(held):
    dataset, _ = held
    model = Oracle(dataset.test)
    score = scorer(held, model, batch_size=5)
    assert len(np.unique(model.known)) == len(dataset.test)
    seeing = score(ServerState({"blind": torch.tensor(-1.0)}))
    assert {name: value for name, value in seeing.test.items() if name.startswith("map")} == pytest.approx(
        dict.fromkeys(["map50", "map75", "map50_total", *(f"map50_{name}" for name in dataset.domain_names)], 1.0)
    )
    rainy = dataset.domain_names.index("rainy")
    blind = score(ServerState({"blind": torch.tensor(float(rainy))}))
    assert blind.test["map50_rainy"] == 0.0
    assert blind.test["map50_snowy"] == pytest.approx(1.0)
    assert blind.test["map50_total"] == pytest.approx(0.75)
    assert [blind.clients[client]["map50"] for client in range(3)] == pytest.approx([1.0, 0.0, 1.0])
    assert score.reliability(ServerState({"blind": torch.tensor(-1.0)})) == {}


def test_a_real_detector_is_scored_the_same_in_any_batch_size_and_stays_as_it_was(held):
    dataset, split = held
    model = build_model(MODELS.create(CHOICE), dataset.shape, dataset.num_classes, Rng(0).torch("init"))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    model.neck.eval()
    one, other = (scorer(held, model, batch_size=size, transductive=True)(ServerState(state)) for size in (3, 100))
    assert one.test == pytest.approx(other.test, abs=1e-6, nan_ok=True)
    assert one.validation == pytest.approx(other.validation, abs=1e-6, nan_ok=True)
    assert model.training
    assert not model.neck.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert {"map50", "map50_snowy", "ap50_disc", "transductive_map50"} <= set(one.test)
    assert "map50" in one.validation
    assert len(split.validation_index) > 0


def test_a_client_s_own_model_is_scored_on_its_own_weather(held):
    dataset, split = held
    data = ClientDataFactory(dataset, split, True, torch.device("cpu")).client(2)
    runtime = SimpleNamespace(experiment=toys.experiment(), parts=parts(), device=torch.device("cpu"))
    found = _scores(runtime, data, Personal(Oracle(dataset.test)))
    assert found["test"]["map50"] == found["test"]["map50_snowy"] == pytest.approx(1.0)
    assert np.isnan(found["test"]["map50_rainy"])
    assert found["test"]["num_examples"] == 6
