from __future__ import annotations

import pytest
import torch

from fedssl.config import ConfigError
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng

CHOICES = [
    {"name": "autoencoder"},
    {"name": "autoencoder", "kind": "conv"},
    {"name": "autoencoder", "kind": "conv", "sizes": [5]},
    {"name": "cnn1d", "width": 4},
    {"name": "cnn1d", "width": 3, "norm": "group"},
    {"name": "mlp", "hidden": 8},
]


def build(choice, shape=(30, 6), num_classes=18, seed=0):
    return build_model(MODELS.create(choice), shape, num_classes, Rng(seed).torch("init"))


@pytest.mark.parametrize("shape", [(8, 1), (9, 3), (30, 6), (31, 39)])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_windows_give_features_and_logits_by_the_contract(choice, shape):
    model = build(choice, shape, num_classes=7).eval()
    features, logits = model(torch.ones(2, shape[1], shape[0]))
    assert logits.shape == (2, 7)
    assert features.shape == (2, model.head[0].num_features if choice["name"] == "autoencoder" else features.shape[1])
    torch.testing.assert_close(model.head(features), logits, rtol=0, atol=0)
    parts = {"backbone", "decoder", "head"} if choice["name"] == "autoencoder" else {"backbone", "head"}
    assert {key.split(".")[0] for key in model.state_dict()} == parts
    assert model.trunk_layers == 0


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_initial_weights_of_sensor_networks_are_what_torch_itself_would_draw(choice):
    generator = Rng(3).torch("init")
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(generator.get_state())
        expected = MODELS.create(choice).build((30, 6), 18).state_dict()
    state = build(choice, seed=3).state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["autoencoder", "cnn1d"])
def test_pictures_are_refused_with_their_shape_and_the_models_that_take_them(name):
    with pytest.raises(ConfigError, match=r"model='28x28x1': .*pictures go to resnet"):
        build({"name": name}, (28, 28, 1))


@pytest.mark.parametrize("name", ["resnet", "lenet"])
def test_windows_are_refused_by_networks_for_images(name):
    with pytest.raises(ConfigError, match=r"model='30x6': .*windows go to autoencoder, cnn1d or mlp"):
        build({"name": name})


@pytest.mark.parametrize("name", ["autoencoder", "cnn1d", "mlp"])
@pytest.mark.parametrize("shape", [(7, 6), (4097, 6), (30, 513)])
def test_windows_out_of_range_are_refused(name, shape):
    with pytest.raises(ConfigError, match="8 to 4096 steps and 1 to 512 channels"):
        build({"name": name}, shape)


def test_an_autoencoder_without_layers_is_refused():
    with pytest.raises(ConfigError, match=r"model\.sizes=\[\]"):
        build({"name": "autoencoder", "sizes": []})


def test_a_convolutional_network_has_the_known_number_of_parameters():
    # 6*4*7 + 4*8*5 + 8*4*3 weights, two numbers a channel in three norms, 4*18 + 18 in the head.
    model = build({"name": "cnn1d", "width": 4})
    assert sum(parameter.numel() for parameter in model.parameters()) == 168 + 160 + 96 + 2 * 16 + 90
