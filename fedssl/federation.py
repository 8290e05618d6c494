"""What travels between clients and server, and where in the run it does: the words that all layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch

from fedssl.rng import Rng

State: TypeAlias = "dict[str, torch.Tensor]"
Memory = dict[str, Any]
"""A client's own state between rounds: name to tensor, float, int or str. It never leaves the client."""


@dataclass(frozen=True)
class Step:
    """Where in the run a hook is called; in phase `evaluate`, server state returned by hooks is discarded."""

    exchange: str
    round_: int
    num_rounds: int
    phase: Literal["train", "evaluate"]
    rng: Rng


@dataclass
class ServerState:
    """What the server knows: the global model's tensors, and whatever else the method or calibration keeps.

    `metrics` are numbers for the round's record; they are emptied when a round begins.
    """

    model: State
    extra: State = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Payload:
    """What a client is sent. A method with more to send extends it, so the wire is read in its file."""

    state: State


@dataclass
class Update:
    """What a client answers.

    `num_examples` weighs it in the average; `statistics` are for calibration; `metrics` map a name to (sum, count),
    so that the server's mean over clients is exact.
    """

    client_id: int
    num_examples: int
    state: State
    statistics: State = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)


Average = Callable[[Sequence[Update]], State]
