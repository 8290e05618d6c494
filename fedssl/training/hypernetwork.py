"""A hyper-network and its optimiser as the named tensors of a server's state, changed only by giving new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from fedssl.federation import State

if TYPE_CHECKING:
    from torch import Tensor

    from fedssl.models.networks.hyper_optimizer import HyperOptimizer
    from fedssl.models.networks.hypernetwork import HyperNetwork

NETWORK, MOMENTS = "hypernetwork.", "moments."
TABLE = f"{NETWORK}embedding.weight"
_ZERO = 1e-12


def under(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries named `prefix...`, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def over(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return all entries with the prefix before their names."""
    return {prefix + name: value for name, value in tensors.items()}


def first_state(network: HyperNetwork, optimizer: HyperOptimizer, known: int) -> State:
    """Return the tensors of a network that is not used any more; users from `known` on get the others' mean."""
    _settle_newcomers(network, known)
    return over(NETWORK, network.state_dict()) | over(MOMENTS, optimizer.moments(network))


def network_of(extra: State, start: State, *, copied: bool = False) -> HyperNetwork:
    """Return the network, on the state's own tensors unless `copied`; `start` has the generated names and shapes."""
    from fedssl.models.networks.hypernetwork import HyperNetwork

    state = {name: tensor.clone() if copied else tensor for name, tensor in under(NETWORK, extra).items()}
    return HyperNetwork.over(state, {name: tensor.shape for name, tensor in start.items()})


def stepped(
    extra: State, start: State, optimizer: HyperOptimizer, trained: Mapping[int, Tensor], known: int
) -> tuple[State, dict[str, float]]:
    """Return network and moments after a step towards the `trained` rows (total,) by user, and the step's metrics.

    Gradients use the network's current output; it equals what was sent unless the network has been updated since.
    Users from `known` on stay the mean of the others.
    """
    network = network_of(extra, start, copied=True)
    moments = {name: tensor.clone() for name, tensor in under(MOMENTS, extra).items()}
    users = torch.tensor(sorted(trained), device=network.output.bias.device)
    rows = torch.stack([trained[user] for user in sorted(trained)])
    facts = optimizer.step(network, users, None, rows, moments)
    _settle_newcomers(network, known)
    return over(NETWORK, network.state_dict()) | over(MOMENTS, moments), facts


def fitted(extra: State, start: State, trained: Mapping[int, Tensor], share: float) -> State:
    """Return the embeddings after a step of the users' own down the gradient, all else frozen.

    Paper: SGD (pFedHN). How far the network bends differs by orders of magnitude between runs, so the step is a
    `share` of the one that is best along the gradient, as far as the network is linear.
    """
    network = network_of(extra, start)
    table = extra[TABLE].clone()
    users = torch.tensor(sorted(trained), device=table.device)
    delta = network.generate(users) - torch.stack([trained[user] for user in sorted(trained)])
    with torch.enable_grad():
        alphas = table[users].requires_grad_()
        (gradient,) = torch.autograd.grad(network.from_embeddings(alphas), alphas, delta)
    _, moved = torch.autograd.functional.jvp(network.from_embeddings, table[users], gradient)  # type: ignore[no-untyped-call]
    best = gradient.square().sum(dim=1) / moved.square().sum(dim=1).clamp_min(_ZERO)
    table[users] -= share * best[:, None] * gradient
    return {TABLE: table}


def _settle_newcomers(network: HyperNetwork, known: int) -> None:
    table = network.embedding.weight.detach()
    table[known:] = table[:known].mean(dim=0)
