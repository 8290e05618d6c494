from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.models.build import initialise
from fedssl.models.networks.autoencoder import BaseClassifier
from fedssl.models.networks.cohort import train_classifiers
from fedssl.rng import Rng

LATENT, CLASSES, EPOCHS = 5, 3, 3


def classifier(seed):
    model = BaseClassifier(LATENT, 6, CLASSES)
    initialise(model, Rng(seed).torch("init"))
    return model


def samples(counts, dtype):
    generator = Rng(7).torch("codes")
    codes = [3 * b + (b + 1) * torch.randn(n, LATENT, generator=generator, dtype=dtype) for b, n in enumerate(counts)]
    return codes, [torch.randint(0, CLASSES, (n,), generator=generator) for n in counts]


def orders(counts):
    return lambda b, epoch: Rng(0).numpy(f"order {b}", epoch).permutation(counts[b])


def alone(codes, labels, start, order, batch_size):
    model = BaseClassifier(LATENT, 6, CLASSES).to(codes.dtype)
    model.load_state_dict(start)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(EPOCHS):
        for batch in torch.split(torch.as_tensor(order(epoch)), batch_size):
            if len(batch) > 1:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(codes[batch]), labels[batch]).backward()
                optimizer.step()
    return model.state_dict()


# Whole batches; short ones; a last one of one sample, dropped; fewer than a batch; one sample; none.
# In float32 only where no gradient is nearly zero: Adam makes rounding a step of full length, torch's own too.
@pytest.mark.parametrize(
    ("counts", "batch_size", "dtype", "tolerance"),
    [
        ((16, 16, 16), 8, torch.float64, 1e-10),
        ((20, 33, 16, 5, 1, 0, 27), 8, torch.float64, 1e-10),
        ((2,), 8, torch.float64, 1e-10),
        ((64, 100, 32, 65), 32, torch.float32, 1e-5),
    ],
)
def test_each_classifier_trains_as_if_alone(counts, batch_size, dtype, tolerance):
    codes, labels = samples(counts, dtype)
    starts = [classifier(b).to(dtype).state_dict() for b in range(len(counts))]
    before = [{name: tensor.clone() for name, tensor in start.items()} for start in starts]
    permute = orders(counts)
    made = train_classifiers(codes, labels, starts, permute, epochs=EPOCHS, batch_size=batch_size, lr=0.01)
    assert len(made) == len(counts)
    for b, state in enumerate(made):
        expected = alone(codes[b], labels[b], starts[b], lambda epoch, b=b: permute(b, epoch), batch_size)
        assert list(state) == list(expected)
        for name, tensor in expected.items():
            assert state[name].dtype == tensor.dtype
            torch.testing.assert_close(state[name], tensor, rtol=tolerance, atol=tolerance)
            assert torch.equal(starts[b][name], before[b][name])


def test_one_start_serves_all_and_the_states_share_no_tensor():
    codes, labels = samples((12, 12), torch.float32)
    start = classifier(0).state_dict()
    first, second = train_classifiers([codes[0]] * 2, [labels[0]] * 2, start, lambda _, __: np.arange(12), epochs=2)
    assert all(torch.equal(first[name], second[name]) for name in start)
    first["dense.weight"].zero_()
    assert second["dense.weight"].any()
    assert not torch.equal(second["dense.weight"], start["dense.weight"])


def test_without_samples_the_start_comes_back_as_a_copy():
    start = classifier(0).state_dict()
    (made,) = train_classifiers([torch.zeros(1, LATENT)], [torch.zeros(1, dtype=torch.int64)], start, orders([1]))
    assert all(torch.equal(made[name], start[name]) for name in start)
    made["dense.weight"].zero_()
    assert start["dense.weight"].any()
    assert train_classifiers([], [], start, orders([])) == []
