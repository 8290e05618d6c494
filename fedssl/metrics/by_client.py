"""Scores of every client from one forward pass over the samples they share."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from numpy import ndarray


def log_softmax(logits: Float[ndarray, "n classes"]) -> Float[ndarray, "n classes"]:
    """Give log probabilities in float64."""
    shifted = logits.astype(np.float64)
    if shifted.size == 0:
        return shifted
    with np.errstate(invalid="ignore"):  # a diverged model gives inf and NaN, and a NaN score
        shifted -= shifted.max(axis=1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


class ClientRows:
    """Logits (n, classes) with the true classes y (n,), and which client holds which rows.

    Client c holds the rows `index[offsets[c]:offsets[c + 1]]`; a row may have many holders. `index` and `holder` are
    without rows of y = -1.
    """

    def __init__(
        self,
        logits: Float[ndarray, "n classes"],
        y: Int[ndarray, " n"],
        index: Int[ndarray, " held"],
        offsets: Int[ndarray, " clients_and_one"],
    ) -> None:
        self.logits = logits
        self.y = y
        self.num_clients = len(offsets) - 1
        holder = np.repeat(np.arange(self.num_clients), np.diff(offsets))
        known = y[index] >= 0
        self.index, self.holder = index[known], holder[known]
        self.count = np.bincount(self.holder, minlength=self.num_clients)

    @cached_property
    def log_probabilities(self) -> Float[ndarray, "n classes"]:
        """Return log probabilities in float64."""
        return log_softmax(self.logits)

    @cached_property
    def predicted(self) -> Int[ndarray, " n"]:
        """Return the class of the largest logit; zeros where there are no classes."""
        if self.logits.shape[1] == 0:
            return np.zeros(len(self.logits), np.int64)
        classes: ndarray = self.logits.argmax(axis=1)
        return classes

    def mean(self, by_row: Float[ndarray, " n"]) -> Float[ndarray, " clients"]:
        """Return each client's mean of a number that every row has; NaN for a client without rows."""
        total = np.bincount(self.holder, weights=by_row[self.index], minlength=self.num_clients)
        return np.where(self.count > 0, total / np.maximum(self.count, 1), np.nan)
