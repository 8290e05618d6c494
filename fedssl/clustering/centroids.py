"""Clusters of unit vectors: a client's own, the federation's, and which class each of those stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fedssl.clustering.sinkhorn import sinkhorn

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_LOCAL_PASSES, _LOCAL_ITERATIONS = 5, 10
_GLOBAL_ITERATIONS = 100
_TEMPERATURE = 0.1
_LR, _MOMENTUM, _WEIGHT_DECAY = 0.01, 0.9, 1e-4
_ZERO = 1e-6


def local_centroids(
    bank: Float[Tensor, "n dim"], count: int, generator: torch.Generator, sharpness: float = 25.0
) -> Float[Tensor, "centroids dim"]:
    """Return min(count, n) unit rows that stand for the bank's unit rows; they start from randomly drawn ones.

    An empty cluster takes a random row of the bank. `bank` and `generator` are on the CPU.
    Source: Zhang et al. 2023 (FedoSSL), section 4.2, with the passes of the authors' code.
    """
    with torch.no_grad():
        centroids = bank[torch.randperm(len(bank), generator=generator)[:count]]
        for _ in range(_LOCAL_PASSES if len(centroids) else 0):
            member = sinkhorn(bank @ centroids.T, sharpness, _LOCAL_ITERATIONS).argmax(dim=1)
            total = torch.zeros_like(centroids).index_add_(0, member, bank)
            norm = total.norm(dim=1, keepdim=True)
            # Members that cancel out have no direction, as an empty cluster has none.
            spare = bank[torch.randint(len(bank), (len(centroids),), generator=generator)]
            centroids = torch.where(norm > _ZERO, total / norm.clamp(min=_ZERO), spare)
        return centroids


def kmeans_centroids(
    bank: Float[Tensor, "n dim"], count: int, generator: torch.Generator
) -> Float[Tensor, "centroids dim"]:
    """Return min(count, n) unit rows from plain k-means (scikit-learn), whose clusters may be of any size.

    A mean without a direction is zero. `bank`, unit rows, and `generator` are on the CPU.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    model = KMeans(min(count, len(bank)), n_init=1, random_state=seed)
    # Its sums depend on the number of threads.
    with threadpool_limits(1):
        centers = model.fit(bank.numpy()).cluster_centers_
    return torch.nn.functional.normalize(torch.from_numpy(centers).float(), dim=1)


def spherical_start(points: Float[Tensor, "n dim"], count: int, generator: torch.Generator) -> Float[Tensor, "k dim"]:
    """Return `count` of the points, as unit rows, each drawn in proportion to 1 - cosine to the nearest drawn before.

    Source: k-means++ (Arthur and Vassilvitskii 2007) on the sphere. Raises ValueError for fewer points than `count`.
    """
    with torch.no_grad():
        if len(points) < count:
            raise ValueError(f"{len(points)} points cannot start {count} centroids")
        unit = torch.nn.functional.normalize(points, dim=1)
        distance = torch.ones(len(unit))
        chosen: list[int] = []
        for _ in range(count):
            # Points that coincide with those chosen are drawn only when there is no other.
            free = torch.ones(len(unit)).index_fill_(0, torch.tensor(chosen, dtype=torch.int64), 0)
            weight = distance * free
            chosen.append(int(torch.multinomial(weight if weight.sum() > 0 else free, 1, generator=generator)))
            distance = torch.minimum(distance, (1 - unit @ unit[chosen[-1]]).clamp(min=0))
        return unit[chosen]


def global_centroids(
    points: Float[Tensor, "n dim"], start: Float[Tensor, "k dim"], steps: int = 500, sharpness: float = 25.0
) -> Float[Tensor, "k dim"]:
    """Return unit rows from `start`, moved so that softmax(points . m / 0.1) agrees with its balanced assignment.

    `points` are all clients' local centroids. SGD with learning rate 0.01, momentum 0.9, weight decay 1e-4.
    Source: Zhang et al. 2023 (FedoSSL), eq. 6, with the loss and optimiser of the authors' code.
    """
    centroids = torch.nn.functional.normalize(start.detach(), dim=1)
    velocity = torch.zeros_like(centroids)
    for _ in range(steps):
        with torch.enable_grad():
            given = centroids.requires_grad_()
            (slope,) = torch.autograd.grad(balance_loss(points, given, sharpness), given)
        with torch.no_grad():
            velocity = _MOMENTUM * velocity + slope + _WEIGHT_DECAY * given
            centroids = torch.nn.functional.normalize(given - _LR * velocity, dim=1)
    return centroids.detach()


def balance_loss(
    points: Float[Tensor, "n dim"], centroids: Float[Tensor, "k dim"], sharpness: float = 25.0
) -> Float[Tensor, ""]:
    """Return minus the mean cosine of soft and balanced assignment; no gradient reaches the balanced one."""
    scores = points @ centroids.T
    target = sinkhorn(scores.detach(), sharpness, _GLOBAL_ITERATIONS)
    soft = torch.softmax(scores / _TEMPERATURE, dim=1)
    return -torch.nn.functional.cosine_similarity(target, soft, dim=1).mean()


def align(
    means: Float[Tensor, "classes dim"],
    counts: Float[Tensor, " classes"] | Int[Tensor, " classes"],
    centroids: Float[Tensor, "classes dim"],
    previous: Float[Tensor, "classes dim"] | None,
) -> Int[Tensor, " classes"]:
    """Return the permutation with which `centroids[permutation]` has row c for class c.

    A class with labelled samples (`counts` > 0) is matched by the cosine of its mean feature, the others by cosine
    to their rows of `previous`; without `previous`, the centroids left over fill the rows in order.
    Paper: not said; the authors' code is greedy, which can give one centroid to two classes.
    """
    with torch.no_grad():
        unit = torch.nn.functional.normalize(centroids.float(), dim=1)
        named = counts > 0
        permutation = torch.full((len(centroids),), -1, dtype=torch.int64)
        permutation[named] = best_match(torch.nn.functional.normalize(means.float()[named], dim=1) @ unit.T)
        left = torch.ones(len(centroids), dtype=torch.bool)
        left[permutation[named]] = False
        rest = left.nonzero()[:, 0]
        if previous is not None:
            rest = rest[best_match(torch.nn.functional.normalize(previous.float()[~named], dim=1) @ unit[rest].T)]
        permutation[~named] = rest
        return permutation


def best_match(similarity: Float[Tensor, "rows columns"]) -> Int[Tensor, " rows"]:
    """Match each row with a column of its own so that the sum is largest; there are at most as many rows as columns."""
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    return torch.as_tensor(columns, dtype=torch.int64)
