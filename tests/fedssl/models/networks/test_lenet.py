"""Tests of fedssl.models.networks.lenet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedssl.models.build import initialise
from fedssl.models.networks.lenet import LeNet


def classic(shape):
    """Build LeNet with its layers in the order of the paper."""
    network = LeNet(shape, 10)
    conv, pool, relu, conv2, _, _, _, *rest = network.backbone
    network.backbone = nn.Sequential(conv, relu, pool, conv2, relu, pool, nn.AdaptiveAvgPool2d(5), *rest)
    return network


def trained(network):
    network.to(memory_format=torch.channels_last)
    optimizer, draws = torch.optim.SGD(network.parameters(), lr=0.05, fused=True), torch.Generator().manual_seed(1)
    for _ in range(5):
        x = torch.randn(10, 1, *network.side, generator=draws).to(memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(network(x).logits, torch.randint(10, (10,), generator=draws))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("side", [(28, 28), (27, 32), (48, 40)])
def test_the_faster_order_of_layers_has_the_bits_of_the_classic_one(side):
    found = []
    for build in (lambda shape: LeNet(shape, 10), classic):
        network = build((*side, 1))
        initialise(network, torch.Generator().manual_seed(0))
        network.side = side
        found.append(trained(network))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
