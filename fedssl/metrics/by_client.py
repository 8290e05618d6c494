"""Scores of every client from one forward pass over the samples they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedssl.metrics.classification import (
    brier_by_row,
    log_softmax,
    macro_f1_by_cell,
    nll_by_row,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from numpy import ndarray


def by_client(
    logits: Float[ndarray, "n classes"],
    y: Int[ndarray, " n"],
    index: Int[ndarray, " held"],
    offsets: Int[ndarray, " clients_and_one"],
) -> dict[str, Float[ndarray, " clients"]]:
    """Give accuracy, loss, macro_f1 and brier of each client; NaN for one without samples.

    Client c holds the rows `index[offsets[c]:offsets[c + 1]]`; a row may have many holders. Rows
    with y = -1 are left out.
    """
    num_clients = len(offsets) - 1
    holder = np.repeat(np.arange(num_clients), np.diff(offsets))
    known = y[index] >= 0
    index, holder = index[known], holder[known]
    count = np.bincount(holder, minlength=num_clients)

    def mean(by_row: Float[ndarray, " n"]) -> Float[ndarray, " clients"]:
        total = np.bincount(holder, weights=by_row[index], minlength=num_clients)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    if len(index) == 0:
        names = ("accuracy", "loss", "macro_f1", "brier")
        return {name: np.full(num_clients, np.nan) for name in names}
    log_probabilities = log_softmax(logits)
    predicted = logits.argmax(axis=1)
    return {
        "accuracy": mean((predicted == y).astype(np.float64)),
        "loss": mean(nll_by_row(log_probabilities, y)),
        "macro_f1": macro_f1_by_cell(predicted[index], y[index], holder, num_clients, logits.shape[1]),
        "brier": mean(brier_by_row(np.exp(log_probabilities), y)),
    }
