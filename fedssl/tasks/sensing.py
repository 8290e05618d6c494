"""One activity a window of sensor readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedssl.tasks.base import register
from fedssl.tasks.classification import Classification


@register("sensing")
@dataclass
class Sensing(Classification):
    """Classification whose main score is the macro F1: activities are unequally frequent, and people lack some."""

    main_metric = "macro_f1"
    headline: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "personal_accuracy": "personal",
        "personal_macro_f1": "personal macro F1",
    }
