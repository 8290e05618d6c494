"""Training an autoencoder with named parts, and what it makes of windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from fedssl.data.arrays import first_of_each
from fedssl.data.views.client_data import ClientData
from fedssl.rng import Rng

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("backbone.", "decoder.")
_DIGITS = 4


def load_autoencoder(model: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put `backbone.*` and `decoder.*` into the model. Raises ValueError unless these are all of them."""
    names = {name for name in model.state_dict() if name.startswith(PARTS)}
    if state.keys() != names:
        raise ValueError(f"these tensors of an autoencoder are missing or too many: {sorted(state.keys() ^ names)}")
    model.load_state_dict(state, strict=False)


def encode(model: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give codes (n, latent) and reconstruction errors (n,), without gradients."""
    backbone, decoder = model.get_submodule("backbone"), model.get_submodule("decoder")
    with torch.no_grad():
        code = backbone(x).float()
        return code, (x - decoder(code).float()).square().flatten(1).mean(dim=1)


def train_autoencoder(
    model: torch.nn.Module, x: Tensor, epochs: int, batch_size: int, lr: float, rng: Rng
) -> dict[str, tuple[float, float]]:
    """Train on windows x by their reconstruction error: Adam, a last short batch kept; give (sum, count) of metrics."""
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


def reconstructions(
    model: torch.nn.Module, state: Mapping[str, Tensor], data: ClientData, count: int
) -> list[dict[str, Any]]:
    """Give `count` of the client's test windows, of different classes, and their reconstructions, as JSON's types."""
    load_autoencoder(model, state)
    x, y = data.test()
    shown = first_of_each(y.cpu().numpy(), 1)[:count]
    with torch.no_grad():
        made = model.get_submodule("decoder")(model.get_submodule("backbone")(x[shown]))
    return [
        {
            "client": data.client_id,
            "class": data.dataset.class_names[int(y[i])],
            "window": rounded(window),
            "reconstruction": rounded(picture),
        }
        for i, window, picture in zip(shown.tolist(), x[shown], made, strict=True)
    ]


def rounded(values: Tensor) -> Any:
    """Give nested lists of numbers short enough for a report."""
    return [rounded(part) for part in values] if values.dim() else round(float(values), _DIGITS)


def principal_map(rows: Tensor) -> Tensor:
    """Give (n, 2): rows (n, dim) by their first two principal axes, the second 0 without one.

    An axis has the sign that makes its largest entry positive.
    """
    centred = rows.double() - rows.double().mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    found: Tensor = centred @ (axes * largest.sign()).T
    return torch.nn.functional.pad(found, (0, 2 - found.shape[1]))
