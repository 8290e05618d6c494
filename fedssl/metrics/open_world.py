"""Scores of open-world predictions: seen classes by name, unseen ones by the best matching of clusters.

`predicted` and `y` hold class ids, `kinds` the kind of each class; NaN for no samples.
Source: Zhang et al. 2023 (FedoSSL), section 5, and its code; the strict and joint scores as in Cao et al. 2022 (ORCA).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedssl.data.base import GLOBALLY_UNSEEN, LOCALLY_UNSEEN, SEEN
from fedssl.metrics.base import Metric, register
from fedssl.metrics.classification import mean_or_nan

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from numpy import ndarray


def matching(predicted: Int[ndarray, " n"], y: Int[ndarray, " n"], num_classes: int) -> Int[ndarray, " classes"]:
    """Give the class that each predicted id stands for: the permutation with which most rows are right.

    Of equally good ones, one in which most ids stand for themselves. Source: Kuhn 1955 (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment

    cell = predicted * num_classes + y
    count = np.bincount(cell, minlength=num_classes**2).reshape(num_classes, num_classes)
    weight = count * (num_classes + 1) + np.eye(num_classes, dtype=np.int64)
    classes: ndarray = linear_sum_assignment(weight, maximize=True)[1]
    return classes


def matched_accuracy(predicted: Int[ndarray, " n"], y: Int[ndarray, " n"], num_classes: int) -> float:
    """Give the share of rows that are right after the best matching of predicted ids to classes."""
    return mean_or_nan((matching(predicted, y, num_classes)[predicted] == y).astype(np.float64))


def strict_accuracy(predicted: Int[ndarray, " n"], y: Int[ndarray, " n"], is_seen: Bool[ndarray, " classes"]) -> float:
    """Give the matched accuracy when ids of seen classes may not be matched: rows predicted as one are wrong."""
    if len(y) == 0:
        return float("nan")
    allowed = ~is_seen[predicted]
    right = matching(predicted[allowed], y[allowed], len(is_seen))[predicted[allowed]] == y[allowed]
    return float(right.sum() / len(y))


def _share(name: str, words: str, order: int, *, sums_up: bool = False) -> Metric:
    return Metric(name, words, "share", "higher", order, sums_up=sums_up)


@register(
    _share("accuracy_all", "accuracy on all classes", 10, sums_up=True),
    _share("accuracy_all_paper", "accuracy on all classes (seen and unseen matched apart)", 20),
    _share("accuracy_seen", "accuracy on seen classes", 30),
    _share("accuracy_unseen", "accuracy on unseen classes", 40),
    _share("accuracy_unseen_strict", "accuracy on unseen classes (predicted as seen: wrong)", 50),
    _share("accuracy_locally_unseen", "accuracy on locally unseen classes", 60),
    _share("accuracy_globally_unseen", "accuracy on globally unseen classes", 70),
    _share("nmi_unseen", "NMI on unseen classes", 80),
    of="clusters",
)
def scores(predicted: Int[ndarray, " n"], y: Int[ndarray, " n"], kinds: Int[ndarray, " classes"]) -> dict[str, float]:
    """Give all open-world scores, as shares.

    `accuracy_seen` is plain; `accuracy_unseen` matches on the unseen samples alone, `accuracy_locally_unseen` and
    `accuracy_globally_unseen` on theirs alone; `accuracy_all` matches once on all samples; `accuracy_all_paper` is
    `accuracy_seen` and `accuracy_unseen` weighed by their samples. A class without training samples counts in
    `accuracy_all` alone.
    """
    kind, num_classes = kinds[y], len(kinds)
    seen, unseen = kind == SEEN, (kind == LOCALLY_UNSEEN) | (kind == GLOBALLY_UNSEEN)

    def matched(rows: Bool[ndarray, " n"]) -> float:
        return matched_accuracy(predicted[rows], y[rows], num_classes)

    on_seen, on_unseen = mean_or_nan((predicted == y)[seen].astype(np.float64)), matched(unseen)
    return {
        "accuracy_all": matched(np.ones(len(y), bool)),
        "accuracy_all_paper": _weighed(on_seen, int(seen.sum()), on_unseen, int(unseen.sum())),
        "accuracy_seen": on_seen,
        "accuracy_unseen": on_unseen,
        "accuracy_unseen_strict": strict_accuracy(predicted[unseen], y[unseen], kinds == SEEN),
        "accuracy_locally_unseen": matched(kind == LOCALLY_UNSEEN),
        "accuracy_globally_unseen": matched(kind == GLOBALLY_UNSEEN),
        "nmi_unseen": nmi(predicted[unseen], y[unseen]),
    }


def nmi(predicted: Int[ndarray, " n"], y: Int[ndarray, " n"]) -> float:
    """Give the mutual information of predictions and classes over the mean of their entropies, 0..1."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(y, predicted)) if len(y) else float("nan")


def aligned(logits: Float[ndarray, "n classes"], y: Int[ndarray, " n"]) -> Float[ndarray, "n classes"]:
    """Give the logits with each column moved to the class that the joint matching gives it; y = -1 takes no part."""
    known = y >= 0
    if not known.any():
        return logits
    num_classes = logits.shape[1]
    found = matching(logits[known].argmax(axis=1), y[known], num_classes)
    return logits[:, np.argsort(found)]


def _weighed(first: float, num_first: int, second: float, num_second: int) -> float:
    parts = [value * n for value, n in ((first, num_first), (second, num_second)) if n]
    return sum(parts) / (num_first + num_second) if parts else float("nan")
