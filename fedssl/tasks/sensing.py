"""One activity a window of sensor readings."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.metrics.classification import weighted_f1
from fedssl.tasks.base import Ints, Kinds, Logits, register
from fedssl.tasks.classification import Classification


@register("sensing")
@dataclass
class Sensing(Classification):
    """Classification whose main score is the macro F1: activities are unequally frequent, and people lack some."""

    main_metric = "macro_f1"

    def score(self, logits: Logits, y: Ints, kinds: Kinds) -> dict[str, float]:
        """Give the metrics of classification and weighted_f1; F1 is over the classes that are in y."""
        known = y >= 0
        return {**super().score(logits, y, kinds), "weighted_f1": weighted_f1(logits[known], y[known])}
