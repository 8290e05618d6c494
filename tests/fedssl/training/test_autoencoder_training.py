from __future__ import annotations

import pytest
import torch

from fedssl.models.autoencoder import PARTS, encode
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng
from fedssl.training.autoencoder import train_autoencoder


def network(seed: int = 0) -> torch.nn.Module:
    spec = MODELS.create({"name": "autoencoder", "sizes": [8, 4]})
    return build_model(spec, (8, 2), 3, Rng(seed).torch("weights"))


def parts(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items() if name.startswith(PARTS)}


def windows(count: int) -> torch.Tensor:
    return torch.rand(count, 2, 8, generator=Rng(0).torch("x")) - 0.5


@pytest.mark.parametrize(("count", "steps"), [(1, 3), (4, 3), (6, 6)])
def test_every_window_is_in_a_step_of_each_epoch(count: int, steps: int):
    model, x = network(), windows(count)
    head = model.head.dense.weight.clone()
    found = train_autoencoder(model, x, epochs=3, batch_size=4, lr=0.01, rng=Rng(0))
    assert found["steps"] == (steps, 1)
    assert found["loss"][1] == steps
    assert found["error_after"][0] == pytest.approx(float(encode(model, x)[1].sum()))
    assert found["error_after"][0] < found["error_before"][0]
    assert model.head.dense.weight.equal(head)


def test_one_step_in_one_batch_is_adams():
    model, other, x = network(), network(), windows(3)
    train_autoencoder(model, x, epochs=1, batch_size=4, lr=0.01, rng=Rng(0))
    optimizer = torch.optim.Adam([p for name, p in other.named_parameters() if name.startswith(PARTS)], lr=0.01)
    other.reconstruction_error(x).mean().backward()
    optimizer.step()
    for one, two in zip(parts(model).values(), parts(other).values(), strict=True):
        torch.testing.assert_close(one, two)
