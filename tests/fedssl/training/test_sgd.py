"""Tests of fedssl.training.sgd: the bits of torch's optimiser, and none of its weight."""

from __future__ import annotations

import copy

import pytest
import torch

from fedssl.models.build import initialise
from fedssl.training.sgd import SGD


def network():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.Flatten(), torch.nn.Linear(20, 4))
    initialise(model, torch.Generator().manual_seed(0))
    return model.to(memory_format=torch.channels_last)


def steps(model, optimizer, count=6):
    draws = torch.Generator().manual_seed(1)
    for i in range(count):
        if i == 3:
            optimizer.param_groups[0]["lr"] = 0.01
        loss = model(torch.randn(7, 3, 4, 4, generator=draws)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}],
)
def test_steps_and_momenta_have_the_bits_of_torchs_fused_sgd(options):
    ours, theirs = network(), network()
    mine = SGD(ours.parameters(), lr=0.1, **options)
    torchs = torch.optim.SGD(theirs.parameters(), lr=0.1, fused=True, **options)
    steps(ours, mine)
    steps(theirs, torchs)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
        buffers = [optimizer.state[p].get("momentum_buffer") for optimizer, p in ((mine, a), (torchs, b))]
        assert (buffers[0] is None) == ("momentum" not in options)
        assert buffers[0] is buffers[1] or torch.equal(*buffers)


def test_groups_have_their_own_decay_and_an_empty_one_is_allowed():
    ours, theirs = network(), network()

    def groups(model):
        parts = [[p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False)]
        return [{"params": part, "weight_decay": decay} for part, decay in zip(parts, (0.5, 0.0), strict=True)]

    steps(ours, SGD([*groups(ours), {"params": []}], 0.1, 0.9))
    steps(theirs, torch.optim.SGD([*groups(theirs), {"params": []}], lr=0.1, momentum=0.9, fused=True))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_kept_momenta_go_on():
    whole, halves = network(), network()
    optimizer = SGD(whole.parameters(), 0.1, 0.9)
    steps(whole, optimizer, 3)
    steps(whole, optimizer, 3)
    first = SGD(halves.parameters(), 0.1, 0.9)
    steps(halves, first, 3)
    second = SGD(halves.parameters(), 0.1, 0.9)
    for parameter in halves.parameters():
        second.state[parameter]["momentum_buffer"] = first.state[parameter]["momentum_buffer"].clone()
    steps(halves, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_a_parameter_without_a_gradient_stays():
    model = network()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    steps(model, SGD(model.parameters(), 0.1, 0.9))
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[2].weight, before["2.weight"])
