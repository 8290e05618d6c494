"""Which samples a server keeps by how well a user's autoencoder gives them back (SemiPFL, figure 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

LEAST_SAMPLES = 2
"""Samples, and classes, that a set needs: batch norm has no statistics of one, a classifier nothing to learn of one."""


def similar(error: Float[Tensor, " n"], tau: float, how: str = "sample", batch_size: int = 128) -> Bool[Tensor, " n"]:
    """Say which samples are like what the autoencoder knows.

    `sample`: error <= tau each; `batch`: the mean of each `batch_size` in the given order < tau, all or none of
    them, as in the authors' code; `none`: all. Raises ValueError for another `how`.
    """
    if how == "none":
        return torch.ones_like(error, dtype=torch.bool)
    if how == "sample":
        return error <= tau
    if how != "batch":
        raise ValueError(f"how={how!r} is not sample, batch or none")
    parts = [
        torch.full_like(part, float(part.mean() < tau)).bool() for part in torch.split(error, batch_size) if len(part)
    ]
    return torch.cat(parts) if parts else error.bool()


def median_threshold(error: Float[Tensor, " n"]) -> float:
    """Give the median of all errors, the mean of the middle two where there are two."""
    # No interpolation can round below a sample that lies on the median itself.
    return float(torch.quantile(error.double(), 0.5))


def usable(y: Int[Tensor, " n"]) -> bool:
    """Say whether a classifier can learn from samples of these classes."""
    return len(y) >= LEAST_SAMPLES and len(torch.unique(y)) >= LEAST_SAMPLES


def similar_sets(
    error: Float[Tensor, " n"],
    y: Int[Tensor, " n"],
    domain: Int[Tensor, " n"],
    tau: float,
    how: str = "sample",
    order: Int[Tensor, " n"] | None = None,
    batch_size: int = 128,
) -> tuple[dict[int, Int[Tensor, " kept"]], int]:
    """Give the positions kept of each domain, and how often the filter had to be widened (0, 1 or 2).

    A set of one sample or one class is left out. Where none is left, the filter is the user's own median error;
    where that leaves none either, all samples of every set with two or more count. `order` is that of the batches.
    """
    place = torch.arange(len(error), device=error.device) if order is None else order.to(error.device)
    error, y, domain = error[place], y[place], domain[place]
    domains = [int(m) for m in torch.unique(domain)]

    def sets(threshold: float, rule: str) -> dict[int, Int[Tensor, " kept"]]:
        found = {}
        for m in domains:
            mine = (domain == m).nonzero().flatten()
            kept = mine[similar(error[mine], threshold, rule, batch_size)]
            if usable(y[kept]):
                found[m] = place[kept].sort().values
        return found

    if found := sets(tau, how):
        return found, 0
    if len(error) and (found := sets(median_threshold(error), "sample")):
        return found, 1
    every = {m: place[domain == m].sort().values for m in domains}
    return {m: index for m, index in every.items() if len(index) >= LEAST_SAMPLES}, 2
