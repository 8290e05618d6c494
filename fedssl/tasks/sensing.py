"""One activity a window of sensor readings."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.tasks.base import register
from fedssl.tasks.classification import Classification


@register("sensing")
@dataclass
class Sensing(Classification):
    """Classification whose main score is the macro F1: activities are unequally frequent, and people lack some."""

    main_metric = "macro_f1"
