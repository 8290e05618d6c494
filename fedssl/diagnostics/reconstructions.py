"""What a report draws of autoencoders: windows as they see them, and a map of users by their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from fedssl.data.arrays import first_of_each
from fedssl.data.views.client_data import ClientData
from fedssl.models.autoencoder import load_autoencoder

if TYPE_CHECKING:
    from torch import Tensor

_DIGITS = 4


def reconstructions(
    model: torch.nn.Module, state: Mapping[str, Tensor], data: ClientData, count: int
) -> list[dict[str, Any]]:
    """Return `count` of the client's test windows, of different classes, and their reconstructions, as JSON's types."""
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
    """Return nested lists of numbers short enough for a report."""
    return [rounded(part) for part in values] if values.dim() else round(float(values), _DIGITS)


def principal_map(rows: Tensor) -> Tensor:
    """Return (n, 2): rows (n, dim) by their first two principal axes, the second 0 without one.

    An axis has the sign that makes its largest entry positive.
    """
    centred = rows.double() - rows.double().mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    found: Tensor = centred @ (axes * largest.sign()).T
    return torch.nn.functional.pad(found, (0, 2 - found.shape[1]))
