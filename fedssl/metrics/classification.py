"""Scores of a classifier from its logits (n, classes) and the true classes; NaN for n = 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedssl.metrics.base import Metric, declare, register
from fedssl.metrics.by_client import ClientRows, log_softmax

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from numpy import ndarray


NAMED = ("classification", "sensing")
"""Tasks in which a model names every class."""


def mean_or_nan(values: Float[ndarray, " n"]) -> float:
    """Give the mean, NaN of nothing."""
    return float(values.mean()) if values.size else float("nan")


def accuracy_by_client(rows: ClientRows) -> Float[ndarray, " clients"]:
    """Return each client's accuracy."""
    return rows.mean((rows.predicted == rows.y).astype(np.float64))


@register(
    Metric("accuracy", unit="share", better="higher", order=0, sums_up=True),
    of="logits",
    tasks=NAMED,
    by_client=accuracy_by_client,
)
def accuracy(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> float:
    """Give the share of rows whose largest logit is the true class."""
    return mean_or_nan((logits.argmax(axis=1) == y).astype(np.float64)) if len(y) else float("nan")


@register(
    Metric("loss", unit="nats", better="lower", order=100),
    of="logits",
    by_client=lambda rows: rows.mean(nll_by_row(rows.log_probabilities, rows.y)),
)
def loss(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> float:
    """Give the mean negative log likelihood, in nats."""
    return mean_or_nan(nll_by_row(log_softmax(logits), y))


@register(
    Metric("brier", "Brier score", better="lower", order=130),
    of="logits",
    by_client=lambda rows: rows.mean(brier_by_row(np.exp(rows.log_probabilities), rows.y)),
)
def brier(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> float:
    """Give the mean squared distance to the one-hot truth, 0..2 (Brier 1950)."""
    return mean_or_nan(brier_by_row(np.exp(log_softmax(logits)), y))


def macro_f1_by_client(rows: ClientRows) -> Float[ndarray, " clients"]:
    """Return each client's macro F1."""
    held = rows.index
    return macro_f1_by_cell(rows.predicted[held], rows.y[held], rows.holder, rows.num_clients, rows.logits.shape[1])


@register(
    Metric("macro_f1", "macro F1", unit="share", better="higher", order=90, sums_up=True),
    of="logits",
    tasks=NAMED,
    by_client=macro_f1_by_client,
)
def macro_f1(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> float:
    """Give the mean F1 over the classes present in y."""
    if len(y) == 0:
        return float("nan")
    cell = np.zeros(len(y), np.int64)
    return float(macro_f1_by_cell(logits.argmax(axis=1), y, cell, 1, logits.shape[1])[0])


@register(Metric("weighted_f1", better="higher"), of="logits", tasks=("sensing",))
def weighted_f1(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> float:
    """Give the mean F1 over the rows' true classes, which weighs a class by its rows in y."""
    if len(y) == 0:
        return float("nan")
    f1, truth = f1_by_class(logits.argmax(axis=1), y, np.zeros(len(y), np.int64), 1, logits.shape[1])
    return float((f1 * truth).sum() / truth.sum())


@register(Metric("ece", "calibration error (ECE)", better="lower", order=110), of="logits")
def ece(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"], bins: int = 15) -> float:
    """Give the expected calibration error over equal-width bins (Guo et al. 2017, eq. 3)."""
    if len(y) == 0:
        return float("nan")
    confidence, is_right, bin_ = confidence_bins(logits, y, bins)
    gap = np.bincount(bin_, weights=confidence - is_right, minlength=bins)
    return float(np.abs(gap).sum() / len(y))


declare(Metric("uncalibrated_ece", "calibration error (ECE) before calibration", better="lower", order=120))


def nll_by_row(log_probabilities: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Give each row's negative log likelihood."""
    values: ndarray = -log_probabilities[np.arange(len(y)), y]
    return values


def brier_by_row(probabilities: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Give each row's squared distance to the one-hot truth: sum p^2 - 2 p_y + 1."""
    of_truth = probabilities[np.arange(len(y)), y]
    values: ndarray = np.square(probabilities).sum(axis=1) - 2 * of_truth + 1
    return values


def macro_f1_by_cell(
    predicted: Int[ndarray, " n"],
    y: Int[ndarray, " n"],
    cell: Int[ndarray, " n"],
    num_cells: int,
    num_classes: int,
) -> Float[ndarray, " cells"]:
    """Give the macro F1 of every cell (say, client); `cell` names each row's; NaN without rows."""
    f1, truth = f1_by_class(predicted, y, cell, num_cells, num_classes)
    present = (truth > 0).sum(axis=1)
    return np.where(present > 0, f1.sum(axis=1) / np.maximum(present, 1), np.nan)


def f1_by_class(
    predicted: Int[ndarray, " n"],
    y: Int[ndarray, " n"],
    cell: Int[ndarray, " n"],
    num_cells: int,
    num_classes: int,
) -> tuple[Float[ndarray, "cells classes"], Int[ndarray, "cells classes"]]:
    """Give F1 = 2 TP / (2 TP + FP + FN), 0 for a class that is not in y, and how often each class is in y."""
    size = num_cells * num_classes
    truth = np.bincount(cell * num_classes + y, minlength=size)
    claimed = np.bincount(cell * num_classes + predicted, minlength=size)
    is_right = predicted == y
    hits = np.bincount(cell[is_right] * num_classes + y[is_right], minlength=size)
    f1 = (2 * hits / np.maximum(truth + claimed, 1)) * (truth > 0)
    return f1.reshape(num_cells, num_classes), truth.reshape(num_cells, num_classes)


def confidence_bins(
    logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"], bins: int
) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"], Int[ndarray, " n"]]:
    """Give each row's confidence, 1.0 where it is right, and its bin (a, b]."""
    confidence = np.exp(log_softmax(logits).max(axis=1))
    is_right = (logits.argmax(axis=1) == y).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    return confidence, is_right, np.searchsorted(edges, confidence, side="left")
