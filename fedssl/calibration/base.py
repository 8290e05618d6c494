"""The two halves of a calibration hook: what a client summarises and what the server makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from fedssl.data.views.client_data import ClientData
from fedssl.federation import State, Update
from fedssl.registry import Registry
from fedssl.rng import Rng


@dataclass
class CalibrationHook:
    """Does nothing; the base of all calibration hooks.

    `on` says which model the client half sees: the global one as `received`, or the `trained` local one.
    """

    name: ClassVar[str] = ""
    on: ClassVar[Literal["received", "trained"]] = "received"

    def summarise(self, model: torch.nn.Module, data: ClientData, rng: Rng) -> dict[str, torch.Tensor]:
        """Give the client's statistics; they join `Update.statistics` and must not hold samples or labels."""
        del model, data, rng
        return {}

    def check(self, statistics: State) -> None:
        """Check what a client sent before anything is made of it. Raises ValueError: that client is then refused."""
        del statistics

    def calibrate(self, model: State, extra: State, updates: Sequence[Update], rng: Rng) -> State:
        """Give new entries of the server's `extra`; `model` are the tensors of the model just aggregated."""
        del model, extra, updates, rng
        return {}

    def tell(self, extra: State, made: State, updates: Sequence[Update]) -> dict[str, float]:
        """Give numbers for the round's record; `made` came of `calibrate`, `extra` is from before."""
        del extra, made, updates
        return {}

    def apply(self, logits: torch.Tensor, extra: dict[str, torch.Tensor]) -> torch.Tensor:
        """Give calibrated logits; the largest stays the largest."""
        del extra
        return logits

    def directions(self, extra: State) -> torch.Tensor | None:
        """Return what the server knows of where each class lies among features (classes, dim), for figures; or None."""
        del extra
        return None


CALIBRATIONS: Registry[CalibrationHook] = Registry("calibration", "fedssl.calibration")
register = CALIBRATIONS.register
