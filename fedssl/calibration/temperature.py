"""One temperature for all clients, fitted on their pooled likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from fedssl.calibration.base import CalibrationHook, register
from fedssl.config import option
from fedssl.data.views.client_data import ClientData
from fedssl.federation import State, Update
from fedssl.rng import Rng
from fedssl.tasks.classification import predict

_LOW, _HIGH = 0.1, 10.0
_BATCH = 500
_NLL, _COUNT, _TEMPERATURE = "temperature.nll", "temperature.count", "temperature"


@register("temperature")
@dataclass
class Temperature(CalibrationHook):
    """Divides the logits by the T of least negative log likelihood (Guo et al. 2017, section 4.2).

    A client sends its summed likelihood at fixed temperatures, so the server's sum is that of the
    pooled samples, and no logit or label leaves the client.
    """

    on: ClassVar[Literal["received", "trained"]] = "received"

    grid: int = option(81, "temperatures tried, log-spaced over 0.1..10", low=3, high=10001)
    fit_on: str = option(
        "validation",
        "samples to fit on; without validation samples a client takes its labelled ones",
        choices=("validation", "labelled"),
    )

    def summarise(self, model: torch.nn.Module, data: ClientData, rng: Rng) -> dict[str, torch.Tensor]:
        """Give the summed likelihood (grid,) and the count, float64; nothing without samples."""
        del rng
        nll, count = torch.zeros(self.grid, dtype=torch.float64), 0
        for x, y in self._batches(data):
            logits = torch.from_numpy(predict(model, [x])).double()
            nll += negative_log_likelihood(logits, y.cpu(), self.temperatures())
            count += len(y)
        if count == 0:
            return {}
        return {_NLL: nll, _COUNT: torch.tensor(float(count), dtype=torch.float64)}

    def check(self, statistics: State) -> None:
        """Check that likelihoods and their count are both there, or neither. Raises ValueError."""
        given = [name for name in (_NLL, _COUNT) if name in statistics]
        if len(given) == 1:
            raise ValueError(f"statistics have {given[0]} alone, not both {_NLL} and {_COUNT}")
        if not given:
            return
        nll, count = statistics[_NLL], statistics[_COUNT]
        if nll.shape != (self.grid,):
            raise ValueError(f"{_NLL} has shape {tuple(nll.shape)}, not {(self.grid,)}")
        if count.shape != () or not math.isfinite(float(count)) or float(count) <= 0:
            raise ValueError(f"{_COUNT}={count.tolist()} is not one number above 0")

    def calibrate(self, model: State, extra: State, updates: Sequence[Update], rng: Rng) -> State:
        """Give the new `temperature`; the old one, or 1, without samples or with a sum not finite."""
        del model, rng
        total = torch.zeros(self.grid, dtype=torch.float64)
        count = 0.0
        for update in sorted(updates, key=lambda update: update.client_id):
            if _NLL in update.statistics:
                total += update.statistics[_NLL].cpu()
                count += float(update.statistics[_COUNT])
        if count <= 0 or not torch.isfinite(total).all():
            return {_TEMPERATURE: extra.get(_TEMPERATURE, torch.ones((), dtype=torch.float64))}
        return {_TEMPERATURE: torch.tensor(self._minimum(total), dtype=torch.float64)}

    def apply(self, logits: torch.Tensor, extra: dict[str, torch.Tensor]) -> torch.Tensor:
        """Give logits / T."""
        return logits / float(extra[_TEMPERATURE]) if _TEMPERATURE in extra else logits

    def temperatures(self) -> torch.Tensor:
        """Give the grid, float64."""
        return torch.logspace(math.log10(_LOW), math.log10(_HIGH), self.grid, dtype=torch.float64)

    def _batches(self, data: ClientData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        index = data.indices.validation
        index = index[data.dataset.train.y[index] >= 0]
        held_out = self.fit_on == "validation" and len(index) > 0
        if not held_out:
            index = data.labelled
        for part in np.split(index, range(_BATCH, len(index), _BATCH)):
            if len(part):
                yield data.plain(part), data.truth(part) if held_out else data.labels(part)

    def _minimum(self, total: torch.Tensor) -> float:
        best = int(total.argmin())
        log_t = self.temperatures().log()
        if best in (0, self.grid - 1):
            return float(log_t[best].exp())
        left, middle, right = (float(value) for value in total[best - 1 : best + 2])
        curvature = left - 2 * middle + right
        shift = 0.5 * (left - right) / curvature if curvature > 0 else 0.0
        return math.exp(float(log_t[best]) + shift * float(log_t[1] - log_t[0]))


def negative_log_likelihood(logits: torch.Tensor, y: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    """Give the summed negative log likelihood at each temperature, (temperatures,)."""
    sums = [torch.nn.functional.cross_entropy(logits / temperature, y, reduction="sum") for temperature in temperatures]
    return torch.stack(sums)
