from __future__ import annotations

import pytest
import torch
from torch import nn

from fedssl.models.networks.hyper_optimizer import HyperOptimizer
from fedssl.models.networks.hypernetwork import HyperNetwork, initialise
from fedssl.rng import Rng

SHAPES = {"a": torch.Size([4]), "b": torch.Size([2, 3])}
SGD = HyperOptimizer(optimizer="sgd", lr=0.1)


class Linear(nn.Module):
    """h(alpha) = W alpha."""

    def __init__(self, weight, alphas):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.tensor(alphas), freeze=False)
        self.output = nn.Linear(2, 3, bias=False)
        self.output.weight = nn.Parameter(torch.tensor(weight))

    def from_embeddings(self, alphas):
        return self.output(alphas)

    def generate(self, users):
        return self.output(self.embedding.weight[users]).detach()


def linear(copies=1):
    return Linear([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]], [[1.0, -1.0]] * copies)


def real(num_users=4):
    network = HyperNetwork(num_users, SHAPES, hidden=8, layers=2).double()
    initialise(network, Rng(0).torch("hyper"))
    return network


def targets(count, seed=1):
    return torch.randn(count, 10, generator=Rng(seed).torch("t"), dtype=torch.float64)


def copy_of(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def step(optimizer, network, users, trained, moments=None, sent=None):
    moments = optimizer.moments(network) if moments is None else moments
    return optimizer.step(network, torch.as_tensor(users), sent, trained, moments)


def test_one_step_of_a_linear_map_by_hand():
    network = linear()
    trained = torch.tensor([[0.0, 0.0, 3.0]])
    facts = step(SGD, network, [0], trained, sent=torch.tensor([[-1.0, -1.0, 4.0]]))
    torch.testing.assert_close(network.output.weight.data, torch.tensor([[1.1, 1.9], [0.1, 0.9], [2.9, -0.9]]))
    torch.testing.assert_close(network.embedding.weight.data, torch.tensor([[0.8, -0.6]]))
    residual = network.generate(torch.tensor([0])) - trained
    assert residual.square().sum().item() / 2 == pytest.approx(0.1494, abs=1e-6)
    assert facts["gradient"] == pytest.approx(5.099020, abs=1e-5)
    assert facts["delta"] == pytest.approx(3**0.5)
    assert facts["delta_share"] == pytest.approx((3 / 18) ** 0.5)


def test_the_joint_norm_is_clipped_and_a_smaller_one_left_alone():
    network = linear()
    step(HyperOptimizer(optimizer="sgd", lr=1.0, clip=1.0), network, [0], torch.tensor([[0.0, 0.0, 3.0]]))
    expected = torch.tensor([1.0, -1.0]) - 0.196116 * torch.tensor([2.0, -4.0])
    torch.testing.assert_close(network.embedding.weight.data[0], expected, rtol=0, atol=2e-6)
    for norm, moved in ((100.0, 50.0), (49.0, 49.0)):
        network = Linear([[0.0, 0.0]] * 3, [[1.0, 0.0]])
        step(HyperOptimizer(optimizer="sgd", lr=1.0), network, [0], torch.tensor([[norm, 0.0, 0.0]]))
        assert network.output.weight.data.tolist() == [[moved, 0.0], [0.0, 0.0], [0.0, 0.0]]
    step(HyperOptimizer(optimizer="sgd", lr=1.0, clip=0.0), network, [0], torch.tensor([[149.0, 0.0, 0.0]]))
    assert network.output.weight[0, 0] == 149


def test_equal_users_give_the_gradient_of_one_by_mean_and_of_all_by_sum():
    moved = {}
    for copies, how in ((1, "mean"), (1, "sum"), (3, "mean"), (3, "sum")):
        network = linear(copies)
        before = network.output.weight.detach().clone()
        optimizer = HyperOptimizer(how=how, optimizer="sgd", lr=0.1)
        step(optimizer, network, list(range(copies)), torch.tensor([[0.0, 0.0, 3.0]] * copies))
        moved[copies, how] = before - network.output.weight.detach()
        torch.testing.assert_close(network.embedding.weight.data, torch.tensor([[0.8, -0.6]] * copies))
    assert torch.equal(moved[1, "mean"], moved[1, "sum"])
    torch.testing.assert_close(moved[3, "mean"], moved[1, "mean"])
    torch.testing.assert_close(moved[3, "sum"], 3 * moved[1, "mean"])


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_the_product_is_the_gradient_of_half_the_squared_distance(how):
    network, users, trained = real(), torch.tensor([3, 1]), targets(2)
    distance = (network(users) - trained).square().sum() / 2
    gradients = dict(
        zip(
            dict(network.named_parameters()),
            torch.autograd.grad(distance, list(network.parameters())),
            strict=True,
        )
    )
    before = copy_of(network)
    step(HyperOptimizer(how=how, optimizer="sgd", lr=1.0, clip=0.0), network, users, trained)
    for name, tensor in network.state_dict().items():
        share = 0.5 if how == "mean" and name != "embedding.weight" else 1.0
        torch.testing.assert_close(before[name] - tensor, share * gradients[name], rtol=1e-6, atol=1e-12)


def test_a_small_step_comes_nearer():
    network, trained = real(), targets(1)
    before = (network.generate(torch.tensor([2])) - trained).norm()
    step(HyperOptimizer(optimizer="sgd", lr=1e-3), network, [2], trained)
    assert (network.generate(torch.tensor([2])) - trained).norm() < before


@pytest.mark.parametrize("optimizer", [SGD, HyperOptimizer()], ids=["sgd", "adam"])
def test_users_that_come_back_unchanged_change_nothing(optimizer):
    network, users = real().float(), torch.tensor([0, 2, 3])
    before = copy_of(network)
    facts = step(optimizer, network, users, network.generate(users))
    assert facts == {"delta": 0.0, "delta_share": 0.0, "gradient": 0.0}
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_an_empty_cohort_changes_nothing():
    network, optimizer = real(), HyperOptimizer()
    before, moments = copy_of(network), optimizer.moments(network)
    assert step(optimizer, network, torch.tensor([], dtype=torch.int64), targets(0), moments) == {}
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(tensor.any() for tensor in moments.values())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_many_steps_of_all_users_are_those_of_torch(name, momentum):
    network, other, trained = real(), real(), targets(4)
    optimizer = HyperOptimizer("sum", 0.0, 0.01, 0.1, name, momentum)
    moments = optimizer.moments(network)
    settings = {"lr": 0.01, "weight_decay": 0.1}
    if name == "sgd":
        torchs = torch.optim.SGD(other.parameters(), momentum=momentum, **settings)
    else:
        torchs = torch.optim.Adam(other.parameters(), **settings)
    users = torch.arange(4)
    for _ in range(5):
        step(optimizer, network, users, trained, moments)
        torchs.zero_grad()
        ((other(users) - trained).square().sum() / 2).backward()
        torchs.step()
    for key, tensor in other.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_absent_users_keep_their_bits_and_count_their_own_steps(name):
    network, optimizer = real(), HyperOptimizer(optimizer=name, momentum=0.9, lr=0.01, weight_decay=0.1)
    moments = optimizer.moments(network)
    for _ in range(3):
        step(optimizer, network, [0, 1], targets(2), moments)
    before = network.embedding.weight.detach().clone()
    kept = {key: tensor[0].clone() for key, tensor in moments.items() if key.endswith("embedding.weight")}
    step(optimizer, network, [2, 3], targets(2), moments)
    after = network.embedding.weight.detach()
    assert torch.equal(after[:2], before[:2])
    assert all(torch.equal(moments[key][0], tensor) for key, tensor in kept.items())
    if name == "adam":
        # The first step of Adam is lr in each coordinate, however late it comes.
        torch.testing.assert_close((after[2:] - before[2:]).abs(), torch.full((2, 2), 0.01, dtype=torch.float64))
        assert moments["steps.users"].tolist() == [3, 3, 1, 1]
        assert set(moments["steps.theta"].tolist()) == {4}


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_step_after_a_copy_of_all_tensors_has_the_same_bits(name):
    network, optimizer = real().float(), HyperOptimizer(optimizer=name, momentum=0.9)
    moments, trained = optimizer.moments(network), targets(2).float()
    step(optimizer, network, [0, 1], trained, moments)
    again = HyperNetwork.over(copy_of(network), SHAPES)
    saved = {key: tensor.clone() for key, tensor in moments.items()}
    for target, state in ((network, moments), (again, saved)):
        step(optimizer, target, [1, 2], trained, state)
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in network.state_dict().items())
    assert all(torch.equal(saved[key], tensor) for key, tensor in moments.items())


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 10\) generated and \(1, 10\) trained of 2"):
        step(SGD, real(), [0, 1], targets(1))
