"""Many small classifiers trained at once, each as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam

_PARAMETERS = tuple(f"{layer}.{kind}" for layer in ("norm1", "dense", "norm2", "output") for kind in ("weight", "bias"))
_RUNNING = tuple(f"{layer}.running_{kind}" for layer in ("norm1", "norm2") for kind in ("mean", "var"))
_COUNTERS = ("norm1.num_batches_tracked", "norm2.num_batches_tracked")
_MOMENTUM, _EPS = 0.1, 1e-5
_ADAM: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "amsgrad": False,
    "maximize": False,
    "fused": True,
}

Orders = Callable[[int, int], Tensor | NDArray[np.int64]]
"""Give classifier b's order of its samples in an epoch: a permutation of 0..n_b-1, int64."""


@dataclass(frozen=True)
class _Batch:
    """The next batch of each classifier that has one: places (active, width) in the joint codes.

    `mask` is (active, width, 1), 1 for samples and 0 for padding, or None without padding; `sizes` is (active, 1, 1).
    """

    places: Tensor
    sizes: Tensor
    mask: Tensor | None


def train_classifiers(
    codes: Sequence[Tensor],
    labels: Sequence[Tensor],
    start: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    orders: Orders,
    *,
    epochs: int = 5,
    batch_size: int = 128,
    lr: float = 1e-3,
) -> list[dict[str, Tensor]]:
    """Train one BaseClassifier on each of `codes` (n_b, latent) and `labels` (n_b,): their states, in that order.

    Each begins at `start`, its own or one for all, and takes what torch would give it alone: cross-entropy, a fresh
    Adam, batch norm in training mode, the last batch kept unless it is of one sample.
    """
    starts = [start] * len(codes) if isinstance(start, Mapping) else list(start)
    batches = [_batches(b, len(labels[b]), orders, epochs, batch_size) for b in range(len(codes))]
    # Who has most batches comes first, so that those with one left are always the first so many.
    ranks = sorted(range(len(codes)), key=lambda b: -len(batches[b]))
    if not ranks or not batches[ranks[0]]:
        return [{name: tensor.clone() for name, tensor in state.items()} for state in starts]
    offsets = [0]
    for b in ranks:
        offsets.append(offsets[-1] + len(labels[b]))
    x = torch.cat([codes[b] for b in ranks]).detach()
    y = torch.cat([labels[b] for b in ranks])
    stack = _Stack([starts[b] for b in ranks], lr)
    ranked = [[batch + offset for batch in batches[b]] for b, offset in zip(ranks, offsets, strict=False)]
    for step in range(len(ranked[0])):
        batch = _joined([own[step] for own in ranked if step < len(own)], x)
        places = batch.places.flatten()
        stack.step(x.index_select(0, places).view(*batch.places.shape, -1), y.index_select(0, places), batch)
    states = stack.states([len(batches[b]) for b in ranks])
    return [state for _, state in sorted(zip(ranks, states, strict=True), key=lambda pair: pair[0])]


def _batches(b: int, count: int, orders: Orders, epochs: int, batch_size: int) -> list[Tensor]:
    """Give the batches of all epochs."""
    found: list[Tensor] = []
    if count > 1:
        for epoch in range(epochs):
            found += torch.split(torch.as_tensor(orders(b, epoch)), batch_size)
    return [batch for batch in found if len(batch) > 1]


def _joined(own: list[Tensor], x: Tensor) -> _Batch:
    counts = [len(batch) for batch in own]
    width = max(counts)
    sizes = torch.tensor(counts, dtype=x.dtype, device=x.device).view(-1, 1, 1)
    if min(counts) == width:
        return _Batch(torch.stack(own).to(x.device), sizes, None)
    places = torch.nn.utils.rnn.pad_sequence(own, batch_first=True).to(x.device)
    mask = torch.arange(width, device=x.device).view(1, -1, 1) < sizes
    return _Batch(places, sizes, mask.to(x.dtype))


class _Stack:
    """Parameters of B classifiers as one tensor (B, P), with Adam's moments; the buffers as (B, 1, dim)."""

    def __init__(self, starts: Sequence[Mapping[str, Tensor]], lr: float) -> None:
        self.starts, self.lr = starts, lr
        self.shapes = {name: starts[0][name].shape for name in _PARAMETERS}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        rows = [torch.cat([state[name].reshape(-1) for name in _PARAMETERS]) for state in starts]
        self.flat = torch.stack(rows).detach()
        self.first, self.second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps = torch.zeros((), device=self.flat.device)
        self.running = {name: torch.stack([state[name] for state in starts])[:, None] for name in _RUNNING}

    def step(self, x: Tensor, y: Tensor, batch: _Batch) -> None:
        """Take one step with codes (active, width, latent) and labels (active * width,); the other classifiers rest."""
        active = len(x)
        flat = self.flat[:active]
        parts = [
            part.view(active, *shape).detach().requires_grad_()
            for part, shape in zip(torch.split(flat, self.sizes, dim=1), self.shapes.values(), strict=True)
        ]
        with torch.enable_grad():
            loss = self._loss(dict(zip(_PARAMETERS, parts, strict=True)), x, y, batch)
        gradients = torch.autograd.grad(loss, parts)
        gradient = torch.cat([part.flatten(1) for part in gradients], dim=1)
        moments = [self.first[:active]], [self.second[:active]]
        with torch.no_grad():
            adam([flat], [gradient], *moments, [], [self.steps], **_ADAM, lr=self.lr)

    def _loss(self, p: dict[str, Tensor], x: Tensor, y: Tensor, batch: _Batch) -> Tensor:
        """Give the sum over classifiers of their mean cross-entropies."""
        z = self._norm(x, "norm1", p, batch)
        z = torch.baddbmm(p["dense.bias"][:, None], z, p["dense.weight"].mT).relu()
        z = self._norm(z, "norm2", p, batch)
        logits = torch.baddbmm(p["output.bias"][:, None], z, p["output.weight"].mT)
        losses = functional.cross_entropy(logits.flatten(0, 1), y, reduction="none").view(x.shape[:2])
        weights = 1 / batch.sizes if batch.mask is None else batch.mask / batch.sizes
        return (losses * weights[..., 0]).sum()

    def _norm(self, x: Tensor, layer: str, p: dict[str, Tensor], batch: _Batch) -> Tensor:
        """Give x (active, width, dim) normalised by its own statistics; those running move on."""
        mask, sizes = batch.mask, batch.sizes
        mean = (x if mask is None else x * mask).sum(1, keepdim=True) / sizes
        centred = x - mean if mask is None else (x - mean) * mask
        var = centred.square().sum(1, keepdim=True) / sizes
        with torch.no_grad():
            active = len(x)
            self.running[f"{layer}.running_mean"][:active].lerp_(mean, _MOMENTUM)
            self.running[f"{layer}.running_var"][:active].lerp_(var * (sizes / (sizes - 1)), _MOMENTUM)
        scale = (var + _EPS).rsqrt() * p[f"{layer}.weight"][:, None]
        return torch.addcmul(p[f"{layer}.bias"][:, None], centred, scale)

    def states(self, counts: Sequence[int]) -> list[dict[str, Tensor]]:
        """Give each classifier's state, with the names of its start; `counts` are the batches each has seen."""
        made: list[dict[str, Tensor]] = []
        for b, count in enumerate(counts):
            parts = zip(self.shapes.items(), torch.split(self.flat[b], self.sizes), strict=True)
            new = {name: part.view(shape).clone() for (name, shape), part in parts}
            new |= {name: running[b, 0].clone() for name, running in self.running.items()}
            new |= {name: self.starts[b][name] + count for name in _COUNTERS}
            made.append({name: new[name] for name in self.starts[b]})
        return made
