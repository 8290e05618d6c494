"""Training an autoencoder with named parts on windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fedssl.models.autoencoder import PARTS, encode
from fedssl.rng import Rng

if TYPE_CHECKING:
    from torch import Tensor


def train_autoencoder(
    model: torch.nn.Module, x: Tensor, epochs: int, batch_size: int, lr: float, rng: Rng
) -> dict[str, tuple[float, float]]:
    """Train on windows x by their reconstruction error: Adam, with the last short batch; return (sum, count) pairs."""
    trained = [parameter for name, parameter in model.named_parameters() if name.startswith(PARTS)]
    optimizer = torch.optim.Adam(trained, lr=lr, fused=True)
    count = float(len(x))
    before, total, steps = float(encode(model, x)[1].sum()), 0.0, 0
    for epoch in range(epochs):
        order = torch.from_numpy(rng.numpy("order", epoch).permutation(len(x))).to(x.device)
        for index in torch.split(order, batch_size):
            loss = model.reconstruction_error(x[index]).mean()  # type: ignore[operator]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item()
            steps += 1
    after = float(encode(model, x)[1].sum())
    return {
        "loss": (total, float(steps)),
        "steps": (float(steps), 1.0),
        "error_before": (before, count),
        "error_after": (after, count),
    }
