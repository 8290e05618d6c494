from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fedssl.calibration.base import CALIBRATIONS
from fedssl.config import ConfigError
from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views.client_data import ClientData
from fedssl.metrics.classification import accuracy, ece
from fedssl.models.base import Outputs
from fedssl.rng import Rng

CLASSES = 4
RNG = Rng(0)


class Scaled(torch.nn.Module):
    """Logits are the first pixels times `scale`; the truth below is drawn with scale 1."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, x):
        self.norm(x)
        features = x.flatten(1)[:, :CLASSES]
        return Outputs(features, features * self.scale)


@dataclass
class Answer:
    client_id: int
    statistics: dict[str, torch.Tensor]
    num_examples: int = 1


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3000, 8, 8, 1), np.uint8)
    logits = (x.reshape(3000, -1)[:, :CLASSES] / 255 - 0.5) / 0.1
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    samples = Samples(x, y, np.full(3000, -1))
    return Dataset("known", samples, samples, tuple("abcd"), (0.5,), (0.1,), "key")


def client(dataset, validation, labelled=(), client_id=0):
    labelled = np.array(labelled, np.int64)
    given = np.full(len(dataset.train), -1)
    given[labelled] = dataset.train.y[labelled]
    indices = Indices(labelled, np.zeros(0, np.int64), np.array(validation, np.int64))
    return ClientData(client_id, dataset, indices, given, False, torch.device("cpu"))


def fit(model, *clients, extra=None, **options):
    hook = CALIBRATIONS.create({"name": "temperature", **options})
    answers = [Answer(data.client_id, hook.summarise(model, data, RNG)) for data in clients]
    return hook, hook.calibrate({}, extra or {}, answers, RNG)


def test_overconfidence_by_three_is_taken_back(dataset):
    data = client(dataset, range(3000))
    _, honest = fit(Scaled(1.0), data)
    hook, extra = fit(Scaled(3.0), data)
    assert float(honest["temperature"]) == pytest.approx(1, rel=0.05)
    assert float(extra["temperature"]) == pytest.approx(3 * float(honest["temperature"]), rel=1e-4)
    x, y = data.validation()
    logits = Scaled(3.0).eval()(x).logits
    calibrated = hook.apply(logits, extra)
    assert calibrated.dtype == torch.float32
    assert ece(calibrated.numpy(), y.numpy()) < 0.3 * ece(logits.numpy(), y.numpy())
    assert accuracy(calibrated.numpy(), y.numpy()) == accuracy(logits.numpy(), y.numpy())


def test_two_clients_pool_to_one_that_holds_both(dataset):
    model = Scaled(2.0)
    _, both = fit(model, client(dataset, range(900)))
    _, pooled = fit(model, client(dataset, range(700, 900), client_id=1), client(dataset, range(700)))
    assert float(pooled["temperature"]) == pytest.approx(float(both["temperature"]), rel=1e-9)


def test_summary_is_the_summed_likelihood_and_the_count(dataset):
    hook = CALIBRATIONS.create({"name": "temperature", "grid": 3})
    data = client(dataset, range(501))
    found = hook.summarise(Scaled(1.0), data, RNG)
    x, y = data.validation()
    logits = Scaled(1.0).eval()(x).logits.double()
    losses = [torch.nn.functional.cross_entropy(logits / t, y) * 501 for t in (0.1, 1, 10)]
    torch.testing.assert_close(found["temperature.nll"], torch.stack(losses))
    assert found["temperature.nll"].dtype == torch.float64
    assert found["temperature.count"] == 501


def test_labelled_samples_stand_in_for_missing_validation(dataset):
    model = Scaled(2.0)
    _, held_out = fit(model, client(dataset, range(300)))
    _, labelled = fit(model, client(dataset, [], range(300)))
    _, chosen = fit(model, client(dataset, range(300, 600), range(300)), fit_on="labelled")
    assert held_out == labelled == chosen


def test_unknown_truth_is_no_evidence(dataset):
    y = dataset.train.y.copy()
    y[:100] = -1
    partly = replace(dataset, train=replace(dataset.train, y=y))
    hook = CALIBRATIONS.create({"name": "temperature"})
    assert hook.summarise(Scaled(1.0), client(partly, range(100)), RNG) == {}
    found = hook.summarise(Scaled(1.0), client(partly, range(101)), RNG)
    assert found["temperature.count"] == 1


def test_without_samples_the_old_temperature_stays(dataset):
    nobody = client(dataset, [])
    assert fit(Scaled(1.0), nobody)[1] == {"temperature": torch.tensor(1.0)}
    old = {"temperature": torch.tensor(2.5, dtype=torch.float64)}
    assert fit(Scaled(1.0), nobody, extra=old)[1] == old
    diverged = fit(Scaled(float("nan")), client(dataset, range(9)), extra=old)
    assert diverged[1] == old


def test_a_temperature_past_the_grid_is_its_end(dataset):
    _, extra = fit(Scaled(1000.0), client(dataset, range(500)))
    assert float(extra["temperature"]) == pytest.approx(10)


def test_model_keeps_its_buffers_and_modes(dataset):
    model = Scaled(1.0).train()
    fit(model, client(dataset, range(50)))
    assert model.training
    assert model.norm.training
    assert model.norm.num_batches_tracked == 0
    assert model.norm.running_mean.tolist() == [0.0]


NLL, COUNT = "temperature.nll", "temperature.count"


@pytest.mark.parametrize(
    ("statistics", "text"),
    [
        ({NLL: torch.zeros(4), COUNT: torch.ones(())}, r"temperature\.nll has shape \(4,\), not \(5,\)"),
        ({NLL: torch.zeros(5)}, r"have temperature\.nll alone"),
        ({COUNT: torch.ones(())}, r"have temperature\.count alone"),
        ({NLL: torch.zeros(5), COUNT: torch.ones(2)}, r"temperature\.count=\[1\.0, 1\.0\] is not one number above 0"),
        ({NLL: torch.zeros(5), COUNT: torch.tensor(-3.0)}, r"temperature\.count=-3\.0 is not one number"),
    ],
)
def test_statistics_that_cannot_be_pooled_are_refused(statistics, text):
    hook = CALIBRATIONS.create({"name": "temperature", "grid": 5})
    with pytest.raises(ValueError, match=text):
        hook.check(statistics)


def test_what_a_client_summarises_passes_the_check(dataset):
    hook = CALIBRATIONS.create({"name": "temperature"})
    model = Scaled(1.0)
    assert hook.check(hook.summarise(model, client(dataset, range(50)), RNG)) is None
    assert hook.check(hook.summarise(model, client(dataset, []), RNG)) is None


def test_none_changes_nothing(dataset):
    hook = CALIBRATIONS.create({"name": "none"})
    logits = torch.tensor([[1.0, 2.0]])
    assert hook.apply(logits, {"temperature": torch.tensor(3.0)}) is logits
    with pytest.raises(ConfigError, match="did you mean temperature"):
        CALIBRATIONS.create({"name": "temprature"})
