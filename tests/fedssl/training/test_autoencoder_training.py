from __future__ import annotations

import pytest
import torch
from autoencoders import network, parts, windows

from fedssl.models.autoencoder import PARTS, encode
from fedssl.rng import Rng
from fedssl.training.autoencoder import train_autoencoder


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
