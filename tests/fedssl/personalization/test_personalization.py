from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views.client_data import ClientData
from fedssl.losses.supervised import cross_entropy
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.personalization.base import PERSONALIZATIONS
from fedssl.rng import Rng

STEP_RNG = Rng(0, round_=3, client=5)


def client(num_labelled):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = (rng.integers(0, 60, (40, 8, 8, 1)) + 150 * y[:, None, None, None]).astype(np.uint8)
    samples = Samples(x, y, np.full(40, -1))
    dataset = Dataset("two", samples, samples, ("dark", "light"), (0.4,), (0.3,), "key")
    labelled = np.arange(num_labelled)
    indices = Indices(labelled, np.arange(num_labelled, 40))
    given = np.where(np.arange(40) < num_labelled, y, -1)
    return ClientData(5, dataset, indices, given, False, torch.device("cpu"))


def network():
    spec = MODELS.create({"name": "resnet", "width": 2})
    return build_model(spec, (8, 8, 1), 2, Rng(0).torch("init"))


def personalize(data, rng=STEP_RNG, **choice):
    model = network().eval()
    with torch.no_grad():  # as an evaluation would call it
        PERSONALIZATIONS.create(choice).personalize(model, {}, data, rng)
    return model


def changed(model):
    before = network().state_dict()
    return {name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])}


def test_finetuning_fits_the_clients_labels():
    data = client(20)
    x, y = data.plain(data.labelled), data.labels(data.labelled)
    before = cross_entropy(network().eval()(x).logits, y)
    model = personalize(data, name="finetune", epochs=10, lr=0.05)
    assert cross_entropy(model(x).logits, y) < 0.5 * before


def test_finetuning_restores_modes_and_gradients():
    model = personalize(client(4), name="finetune", epochs=1, part="head")
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_head_alone_trains_where_asked():
    model = personalize(client(4), name="finetune", epochs=1, part="head")
    assert changed(model) == {"head.weight", "head.bias"}


def test_one_sample_leaves_running_statistics_alone():
    names = changed(personalize(client(1), name="finetune", epochs=1))
    assert "head.weight" in names
    assert not [name for name in names if "running" in name or "tracked" in name]


def test_equal_keys_give_equal_bits_and_others_do_not():
    first, again = (personalize(client(12), name="finetune", batch_size=5) for _ in range(2))
    other = personalize(client(12), STEP_RNG.at(round_=4), name="finetune", batch_size=5)
    assert first.head.weight.equal(again.head.weight)
    assert not first.head.weight.equal(other.head.weight)


@pytest.mark.parametrize(("name", "num_labelled"), [("finetune", 0), ("none", 9), ("local_head", 9)])
def test_nothing_to_do_leaves_the_model(name, num_labelled):
    assert changed(personalize(client(num_labelled), name=name)) == set()


def test_only_local_head_keeps_tensors_and_only_the_heads():
    names = list(network().state_dict())
    kept = {
        hook: [name for name in names if PERSONALIZATIONS.create({"name": hook}).keeps(name)]
        for hook in ("none", "finetune", "local_head")
    }
    assert kept == {"none": [], "finetune": [], "local_head": ["head.weight", "head.bias"]}
