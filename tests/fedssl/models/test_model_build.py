from __future__ import annotations

import pytest
import torch

from fedssl.config import ConfigError
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng

RGB = (32, 32, 3)


def build(choice, shape=RGB, num_classes=10, seed=0):
    return build_model(MODELS.create(choice), shape, num_classes, Rng(seed).torch("init"))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"name": "resnet"}, 307_536),
        ({"name": "resnet", "norm": "group"}, 307_536),
        ({"name": "resnet", "width": 32}, 1_226_400),
        ({"name": "resnet18"}, 11_168_832),
        ({"name": "resnet", "width": 64, "blocks": 2}, 11_168_832),
    ],
)
def test_backbone_has_the_known_number_of_parameters(choice, expected):
    assert count(build(choice).backbone) == expected


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("lenet", (28, 28, 1), 61_706),
        ("lenet", RGB, 62_006),
        ("lenet", (96, 8, 3), 62_006),
        ("mlp", (28, 28, 1), 199_210),
    ],
)
def test_network_has_the_known_number_of_parameters(name, shape, expected):
    assert count(build({"name": name}, shape)) == expected


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (33, 17, 3), (96, 96, 3)])
@pytest.mark.parametrize("name", ["resnet", "lenet", "mlp"])
def test_every_side_gives_features_and_logits_by_the_contract(name, shape):
    model = build({"name": name}, shape, num_classes=7)
    height, width, channels = shape
    features, logits = model(torch.ones(2, channels, height, width))
    assert logits.shape == (2, 7)
    torch.testing.assert_close(model.head(features), logits, rtol=0, atol=0)
    assert {key.split(".")[0] for key in model.state_dict()} == {"backbone", "head"}
    assert [name for name, _ in model.named_children()] == ["backbone", "head"]


@pytest.mark.parametrize("choice", [{"name": "resnet"}, {"name": "lenet"}, {"name": "mlp"}])
def test_initial_weights_are_what_torch_itself_would_draw(choice):
    generator = Rng(3).torch("init")
    before = torch.random.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(generator.get_state())
        expected = MODELS.create(choice).build(RGB, 10).state_dict()
    state = build(choice, seed=3).state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_gives_other_weights_in_channels_last():
    first, second = build({"name": "resnet"}, seed=0), build({"name": "resnet"}, seed=1)
    weight = first.backbone[3].conv1.weight
    assert not torch.equal(weight, second.backbone[3].conv1.weight)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_a_layer_of_unknown_initialisation_is_refused_by_name():
    class Spec:
        def build(self, *_):
            return torch.nn.Sequential(torch.nn.PReLU())

    with pytest.raises(TypeError, match="0: PReLU"):
        build_model(Spec(), RGB, 2, Rng(0).torch("init"))


@pytest.mark.parametrize("shape", [(7, 32, 3), (32, 97, 3), (32, 32, 2)])
def test_a_shape_the_networks_cannot_take_is_refused(shape):
    with pytest.raises(ConfigError, match="sides of 8 to 96"):
        build({"name": "lenet"}, shape)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [({"name": "resnet"}, 230_144), ({"name": "resnet", "width": 32}, 919_040), ({"name": "resnet18"}, 8_393_728)],
)
def test_the_backbone_is_cut_before_its_last_stage(choice, expected):
    model = build(choice)
    assert count(model.backbone[model.trunk_layers :]) == expected


@pytest.mark.parametrize("name", ["lenet", "mlp"])
def test_a_network_without_stages_has_no_trunk(name):
    assert build({"name": name}).trunk_layers == 0


@pytest.mark.parametrize(("choice", "expected"), [({"name": "resnet"}, 1280), ({"name": "resnet18"}, 5120)])
def test_a_cosine_head_has_one_vector_a_class_and_no_bias(choice, expected):
    head = build({**choice, "head": "cosine"}).head
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    assert count(head) == expected


def test_a_cosine_head_gives_ten_times_the_cosine_whatever_the_lengths():
    head = build({"name": "resnet", "width": 1, "head": "cosine"}, num_classes=3).head
    with torch.no_grad():
        head.weight.copy_(2 * torch.eye(8)[:3])
        z = torch.tensor([[3.0, 4.0, 0, 0, 0, 0, 0, 0], [0, 0, 7.0, 0, 0, 0, 0, 0]])
        torch.testing.assert_close(head(z), torch.tensor([[6.0, 8.0, 0.0], [0.0, 0.0, 10.0]]))
        torch.testing.assert_close(head(0.1 * z), head(z))
        # One of C orthogonal class vectors: softmax is e^10 / (e^10 + C - 1).
        assert head(z[1:]).softmax(1).max().item() == pytest.approx(0.9999092, abs=1e-6)
