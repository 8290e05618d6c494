from __future__ import annotations

import pytest
import torch

from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.models.networks.autoencoder import Autoencoder, BaseClassifier
from fedssl.rng import Rng


def build(shape=(30, 6), num_classes=18, seed=0, **options):
    spec = MODELS.create({"name": "autoencoder", **options})
    return build_model(spec, shape, num_classes, Rng(seed).torch("init"))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("channels", "sizes", "expected"),
    [
        (6, [256, 128, 64], 175_092),
        (3, [256, 128, 64], 128_922),
        (6, [64, 32, 16], 28_548),
        (3, [64, 32, 16], 16_938),
    ],
)
def test_an_autoencoder_has_the_known_number_of_parameters_in_twelve_tensors(channels, sizes, expected):
    model = build((30, channels), sizes=sizes)
    state = {name: t for name, t in model.state_dict().items() if name.startswith(("backbone.", "decoder."))}
    assert count(model.backbone) + count(model.decoder) == expected
    assert len(state) == 12
    assert sum(tensor.nbytes for tensor in state.values()) == 4 * expected


@pytest.mark.parametrize(
    ("latent", "classes", "expected"), [(64, 18, 1506), (64, 6, 1302), (16, 18, 642), (16, 6, 438)]
)
def test_a_base_classifier_has_the_known_number_of_parameters(latent, classes, expected):
    model = BaseClassifier(latent, 16, classes)
    assert count(model) == expected
    floats = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    assert floats == expected + 2 * (latent + 16)


def test_windows_are_flattened_step_by_step_and_put_back():
    model = Autoencoder((8, 2), 3, [4])
    x = torch.arange(16.0).view(1, 2, 8)
    flat = model.backbone[0](x)
    assert flat[0, :4].tolist() == [0.0, 8.0, 1.0, 9.0]
    assert torch.equal(model.decoder[-1](flat), x)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("steps", [8, 13, 30])
def test_a_reconstruction_has_the_shape_of_its_input_and_stays_within_one(kind, steps):
    model = build((steps, 3), kind=kind, sizes=[6, 5, 4])
    x = 100 * torch.randn(2, 3, steps, generator=Rng(0).torch("x"))
    made = model.reconstruct(x)
    assert made.shape == x.shape
    assert made.abs().max() <= 1


def test_the_error_of_a_zero_output_is_the_mean_square_of_each_window():
    model = build((8, 1))
    for parameter in model.decoder[-3].parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.zeros(3, 1, 8)
    x[1] = 0.1
    x[2, 0, :3] = torch.tensor([0.3, 0.4, 0.5])
    torch.testing.assert_close(model.reconstruction_error(x), torch.tensor([0.0, 0.01, 0.0625]))


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_constant_window_is_learned_within_500_steps(kind):
    model = build((30, 3), kind=kind)
    x = torch.full((1, 3, 30), 0.3)
    optimizer = torch.optim.Adam([*model.backbone.parameters(), *model.decoder.parameters()], lr=1e-3)
    for _ in range(500):
        error = model.reconstruction_error(x).mean()
        if error < 1e-4:
            break
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert error < 1e-4
