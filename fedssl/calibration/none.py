"""No calibration."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.calibration.base import CalibrationHook, register


@register("none")
@dataclass
class NoCalibration(CalibrationHook):
    """Leaves the logits as they are."""
