"""FedSTO's penalty: how far weight matrices are from orthogonal, by spectral norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn


def weight_matrices(model: nn.Module, parts: Sequence[str] = ("neck", "head")) -> list[Tensor]:
    """Give the weights of the model's named parts as matrices (out, in * kernel); biases and batch norm are left out.

    Take them anew each step: they have the parameters' graph but may be copies.
    """
    named = model.named_parameters()
    return [weight.flatten(1) for name, weight in named if name.split(".")[0] in parts and weight.dim() > 1]


def orthogonality(
    matrices: Sequence[Tensor], iters: int, generator: torch.Generator, *, squared: bool = False
) -> Float[Tensor, ""]:
    """Give R, the sum over matrices W of the spectral norms of W^T W - I and W W^T - I, by power iteration.

    `iters` rounds start from a Gaussian vector of `generator` (on the CPU); `squared` squares each norm.
    Source: Kim et al. 2023 (FedSTO), section 4.2; Bansal et al. 2018 (SRIP), whose code squares.
    """
    starts = [torch.randn(min(matrix.shape), generator=generator) for matrix in matrices]
    device = matrices[0].device.type if matrices else "cpu"
    # Autocast would multiply in half precision, where 1 - 1e-3 is 1.
    with torch.autocast(device, enabled=False):
        norms = [deviation(matrix, start, iters) for matrix, start in zip(matrices, starts, strict=True)]
        return _total(matrices, norms, squared)


def orthogonality_exact(matrices: Sequence[Tensor], *, squared: bool = False) -> Float[Tensor, ""]:
    """Give R from singular values, in float64 on the CPU."""
    norms = [(torch.linalg.svdvals(m.cpu().double()).square() - 1).abs().max() for m in matrices]
    return _total(matrices, norms, squared)


def orthogonality_floor(matrices: Sequence[Tensor]) -> int:
    """Give the number of matrices that are not square: R is never below it, as their larger Gram is singular."""
    return sum(matrix.shape[0] != matrix.shape[1] for matrix in matrices)


def deviation(matrix: Float[Tensor, "a b"], start: Float[Tensor, " least"], iters: int) -> Float[Tensor, ""]:
    """Give an estimate, from below, of the spectral norm of the smaller Gram matrix minus I.

    Symmetric power iteration: v = A u / |A u|, u = A v / |A v|, u^T A v; `start` (min(a, b),) is the first u. Only the
    last product has a gradient. Eigenvalues +x and -x give x.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    u = start.to(wide)
    v = u
    with torch.no_grad():
        for _ in range(iters):
            v = _times(wide, u)
            u = _times(wide, v)
    return (wide.T @ u) @ (wide.T @ v) - u @ v


def _times(wide: Tensor, x: Tensor) -> Tensor:
    """Give (W W^T - I) x at length 1; 0 if it is 0."""
    return torch.nn.functional.normalize(wide @ (wide.T @ x) - x, dim=0)


def _total(matrices: Sequence[Tensor], norms: Sequence[Tensor], squared: bool) -> Tensor:
    """Sum both norms of each matrix: Grams share eigenvalues but for the zeros of the larger, which deviate by 1."""
    total = torch.zeros((), device=norms[0].device if norms else None)
    for matrix, small in zip(matrices, norms, strict=True):
        large = small if matrix.shape[0] == matrix.shape[1] else small.clamp(min=1)
        total = total + (small.square() + large.square() if squared else small + large)
    return total
