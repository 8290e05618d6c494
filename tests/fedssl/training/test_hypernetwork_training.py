from __future__ import annotations

import torch

from fedssl.models.networks.hyper_optimizer import HyperOptimizer
from fedssl.models.networks.hypernetwork import HyperNetwork, initialise
from fedssl.rng import Rng
from fedssl.training.hypernetwork import TABLE, first_state, fitted, network_of, stepped

START = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
OPTIMIZER = HyperOptimizer()


def state(known: int = 8) -> dict[str, torch.Tensor]:
    network = HyperNetwork(8, {name: tensor.shape for name, tensor in START.items()}, hidden=4, layers=1)
    initialise(network, Rng(0).torch("h"), "centred", START)
    return first_state(network, OPTIMIZER, known)


def rows(*users: int) -> dict[int, torch.Tensor]:
    return {user: torch.full((8,), 0.1 * user + 0.1) for user in users}


def test_a_step_gives_new_tensors_and_leaves_the_old():
    before = state()
    copies = {name: tensor.clone() for name, tensor in before.items()}
    made, facts = stepped(before, START, OPTIMIZER, rows(1, 5), 8)
    assert all(tensor.equal(copies[name]) for name, tensor in before.items())
    assert made.keys() == before.keys()
    assert (made[TABLE] != before[TABLE]).any(dim=1).tolist() == [user in (1, 5) for user in range(8)]
    assert facts["gradient"] > 0


def test_the_order_in_which_answers_came_does_not_matter():
    one, _ = stepped(state(), START, OPTIMIZER, rows(1, 5), 8)
    other, _ = stepped(state(), START, OPTIMIZER, rows(5, 1), 8)
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


def test_newcomers_are_the_mean_of_the_others_before_and_after_a_step():
    before = state(known=6)
    after, _ = stepped(before, START, OPTIMIZER, rows(1), 6)
    for table in (before[TABLE], after[TABLE]):
        assert table[6].equal(table[:6].mean(dim=0))
        assert table[7].equal(table[6])


def test_an_embedding_is_fitted_alone_by_a_share_of_the_best_step_down_its_gradient():
    extra, users = state(), rows(6, 7)
    network = network_of(extra, START)
    alphas = extra[TABLE][[6, 7]].requires_grad_()
    target = torch.stack(list(users.values()))
    distance = (network.from_embeddings(alphas) - target).square().sum() / 2
    (gradient,) = torch.autograd.grad(distance, alphas)
    jacobian = [torch.autograd.functional.jacobian(network.from_embeddings, alpha[None].detach()) for alpha in alphas]
    # A linear network's distance is least a step |g|^2 / |J g|^2 down the gradient g.
    best = [g.square().sum() / (j[0, :, 0] @ g).square().sum() for j, g in zip(jacobian, gradient, strict=True)]
    made = fitted(extra, START, users, share=0.5)
    assert made.keys() == {TABLE}
    torch.testing.assert_close(made[TABLE][6:], extra[TABLE][6:] - 0.5 * torch.stack(best)[:, None] * gradient)
    assert made[TABLE][:6].equal(extra[TABLE][:6])


def test_fitting_an_embedding_brings_it_nearer():
    extra, users = state(), rows(6, 7)
    target = torch.stack(list(users.values()))

    def distance(table: torch.Tensor) -> float:
        return float((network_of(extra, START).from_embeddings(table[6:]) - target).detach().square().sum())

    steps = [extra[TABLE]]
    for _ in range(3):
        steps.append(fitted({**extra, TABLE: steps[-1]}, START, users, share=0.5)[TABLE])
    far = [distance(table) for table in steps]
    assert far == sorted(far, reverse=True)
    assert far[-1] < far[0]
