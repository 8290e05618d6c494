"""The supervised loss of a batch, whatever the kind of its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from fedssl.losses.detection import DEFAULT, LossSettings, LossTerms, detection_loss
from fedssl.losses.supervised import cross_entropy
from fedssl.models.detection.assign import Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedssl.data.views.client_data import ClientData


def labelled_losses(
    model: torch.nn.Module, data: ClientData, parts: Sequence[NDArray[np.int64]], key: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Give views and loss of each batch of labelled samples, by the model as it is when the batch is asked for.

    Pictures and windows: cross-entropy on weak views. Scenes: the detector's loss on strong views. The i-th part's
    views are drawn by `key + i`.
    """
    if data.dataset.train.holds_boxes:
        for i, index in enumerate(parts):
            x, loss, _ = scene_loss(model, data, index, key + i)
            yield x, loss
        return
    for x, y in zip(data.weak_batches(parts, key), data.label_batches(parts), strict=True):
        yield x, cross_entropy(model(x).logits, y)


def scene_loss(
    model: torch.nn.Module,
    data: ClientData,
    index: NDArray[np.int64],
    key: int,
    settings: LossSettings = DEFAULT,
    *,
    mosaic: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, LossTerms]:
    """Give strong views of labelled scenes, the detector's loss on their boxes, and its terms."""
    batch = data.detection_batch(index, key, strong=True, mosaic=mosaic)
    targets = Targets(batch.boxes, batch.classes, batch.image_index)
    loss, parts = detection_loss(model(batch.x), targets, model.head.anchors, settings)  # type: ignore[union-attr, arg-type]
    return batch.x, loss, parts
