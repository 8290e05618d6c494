"""Simulated hardware of the clients: options of a method that can cope with it."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.config import ConfigError, option
from fedssl.rng import Rng


@dataclass
class Devices:
    """Scenarios of this project's own, and the time that a visit would take. All of it is simulated."""

    hardware: str = option(
        "none",
        "simulated devices: of unequal speed, dropping out of visits, or answering rounds later",
        choices=("none", "slow", "dropout", "late"),
    )
    factors: list[float] = option([1.0, 2.0, 4.0], "slow: how many times slower users 0, 1, ... are, in turn", low=1)
    slow_epochs: str = option(
        "cut", "slow: epochs that fit the time of the fastest, one at least; or all", choices=("cut", "all")
    )
    drop_rate: float = option(0.2, "dropout: chance that a visit fails", low=0, below=1)
    late_rate: float = option(0.5, "late: chance that an answer comes late", low=0, high=1)
    max_delay: int = option(3, "late: most rounds that an answer is late", low=1)
    stale: str = option("drop", "late: what becomes of a late answer", choices=("drop", "apply"))
    bandwidth: float = option(1e6, "bytes a second to or from a device, for the simulated time", above=0)
    step_seconds: float = option(0.01, "seconds of a training step on the fastest device, for the same", low=0)

    def __post_init__(self) -> None:
        if not self.factors:
            raise ConfigError("method.factors", self.factors, "at least one number")

    def factor(self, client_id: int) -> float:
        """Give how many times slower than the fastest this device is."""
        return self.factors[client_id % len(self.factors)] if self.hardware == "slow" else 1.0

    def epochs_of(self, client_id: int, epochs: int) -> int:
        """Give the epochs that the device has time for."""
        return max(1, int(epochs / self.factor(client_id))) if self.slow_epochs == "cut" else epochs

    def drops(self, rng: Rng) -> bool:
        """Say whether the visit fails; `rng` names round and client."""
        return self.hardware == "dropout" and bool(rng.numpy("dropout").random() < self.drop_rate)

    def delay(self, rng: Rng) -> int:
        """Give the rounds by which the answer is late; `rng` names round and client."""
        if self.hardware != "late":
            return 0
        generator = rng.numpy("late")
        return int(generator.integers(1, self.max_delay + 1)) if generator.random() < self.late_rate else 0

    def seconds(self, client_id: int, num_bytes: int, steps: float) -> float:
        """Give bytes / bandwidth + steps x factor x time of a step."""
        return num_bytes / self.bandwidth + steps * self.factor(client_id) * self.step_seconds
