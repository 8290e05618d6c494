"""The hooks of a method: what a client does in a round and what the server does with the answers."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from fedssl.calibration.base import CalibrationHook
from fedssl.config import ConfigError, Experiment
from fedssl.data.base import SOURCES
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Average, Memory, Payload, ServerState, State, Step, Update
from fedssl.personalization.base import Personal, PersonalizationHook
from fedssl.registry import Registry
from fedssl.rng import Rng

__all__ = [
    *("METHODS", "Method", "check_task", "register"),
    *("Average", "Memory", "Payload", "ServerState", "State", "Step", "Update"),
]


RENAMED = {
    "doubts": "warnings",
    "sweeps": "evaluation_visits",
    "trainers": "num_training_clients",
    "describe": "diagnostics",
}
"""Hooks by their old names, under which a user's method may still override them, for one version."""


@dataclass
class Method(ABC):
    """A federated method; its fields are its hyper-parameters.

    All hooks but `train_client` have a FedAvg default. The four steps of a round, for each exchange:
    `downlink`, `train_client`, `aggregate` and `calibrate`, `train_server`.
    """

    name: ClassVar[str] = ""
    exchanges: ClassVar[tuple[str, ...]] = ("train",)
    payload_type: ClassVar[type[Payload]] = Payload
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    calibration: ClassVar[str] = "none"
    personalization: ClassVar[str] = "none"
    personalizations: ClassVar[tuple[str, ...]] = ()
    """Hooks that the method works with; empty = any."""
    scores_trained_model: ClassVar[bool] = False
    """Ask that a client's model be scored on its own test samples after training, before its reply."""
    learns_from_labels: ClassVar[bool] = False
    """Without a labelled sample at any client it learns nothing."""
    takes_average: ClassVar[bool] = True
    """Without it the choice of `aggregation` has no effect."""
    global_model: ClassVar[bool] = True
    """Without one, nothing but the clients' own models is scored."""
    open_world: ClassVar[bool] = False
    """Finds classes that nobody has labels of, and is scored by the task `open_world`."""
    defaults: ClassVar[tuple[str, ...]] = ()
    """Overrides such as `data=digits` that hold unless the user chose otherwise."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Take hooks that the class defines under names of RENAMED as what they are called now, with a warning."""
        super().__init_subclass__(**options)
        for old, new in RENAMED.items():
            if callable(vars(cls).get(old)) and new not in vars(cls):
                # Not a DeprecationWarning: Python would not show it, and a later version not call the hook.
                warnings.warn(f"{cls.__name__}.{old}: the hook is called {new} now", FutureWarning, stacklevel=2)
                setattr(cls, new, vars(cls)[old])
        _keep_old_names(cls)

    def evaluation_visits(self) -> int:
        """Give how often all clients go through all exchanges, in phase `evaluate`, before their models are scored.

        The server's state is put back after the scores; clients' memories stay as the sweeps left them.
        """
        return 0

    def num_training_clients(self, num_clients: int) -> int:
        """Give n: clients 0..n-1 train; the others join after training, in sweeps and scores alone."""
        return num_clients

    def check(self, model: torch.nn.Module, data: ClientData | None, num_clients: int) -> None:
        """Check that the method can work with what it is given, before anything is written. Raises ConfigError.

        `model` has shapes but no values (device meta); `data` are the server's own samples, if it has any.
        """
        del model, data, num_clients

    def warnings(self, experiment: Experiment, data: ClientData | None) -> list[str]:
        """Give a line for each choice with which the method can run, but hardly learn; `data` as in `check`."""
        del experiment, data
        return []

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Give the first server state; not called when a run is resumed.

        `model` has the initial weights and is scratch; `data` are the server's own labelled samples, if it has any.
        """
        del data, rng, num_clients
        return ServerState({name: tensor.clone() for name, tensor in model.state_dict().items()})

    def downlink(self, server: ServerState, client_id: int, step: Step) -> Payload:
        """Give what this client is sent."""
        del client_id, step
        return self.payload_type(state=server.model)

    def uplink(self, server: ServerState, payload: Payload, step: Step) -> State:
        """Give tensors with the names, shapes and types that `Update.state` must have; others are refused."""
        del server, step
        return payload.state

    @abstractmethod
    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Train where the data is.

        `model` is scratch and may be overwritten; `payload`, `memory` and `data` stay as they were.
        """

    def aggregate(self, server: ServerState, updates: Sequence[Update], step: Step, average: Average) -> ServerState:
        """Give the next server state; `average` is the configured Flower strategy.

        `updates`, here and below, are those accepted in this exchange, in order of client ids; there are some, but in
        `train_server`, which runs without any where `min_answers=0` allows it.
        """
        del step
        return replace(server, model={**server.model, **average(updates)})

    def calibrate(
        self, server: ServerState, updates: Sequence[Update], step: Step, hook: CalibrationHook
    ) -> ServerState:
        """Give the calibrated server state; default: the hook's new entries join `extra`."""
        made = hook.calibrate(server.model, server.extra, updates, step.rng)
        told = hook.tell(server.extra, made, updates)
        return replace(server, extra={**server.extra, **made}, metrics={**server.metrics, **told})

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Give the state after training on the server's own labelled data; `model` is scratch."""
        del model, data, updates, step
        return server

    def personalize(
        self,
        model: torch.nn.Module,
        payload: Payload,
        memory: Memory,
        data: ClientData,
        step: Step,
        hook: PersonalizationHook,
    ) -> Personal | None:
        """Give the client's own model; default: what the configured hook makes of the payload's. `model` is scratch.

        None means that the client has no model of its own yet: it answers without a score.
        """
        model.load_state_dict(payload.state)
        return hook.personalize(model, memory, data, step.rng)

    def diagnostics(self, server: ServerState, model: torch.nn.Module, data: Sequence[ClientData]) -> dict[str, Any]:
        """Give what a report draws beyond the scores, as JSON's types; it becomes `method.json`.

        `model` is scratch; `data` are all clients' in a simulation.
        """
        del server, model, data
        return {}


def _keep_old_names(cls: type[Method]) -> None:
    """Let `super()` find a class's hooks under their old names too."""
    for old, new in RENAMED.items():
        if new in vars(cls):
            setattr(cls, old, vars(cls)[new])


_keep_old_names(Method)  # type: ignore[type-abstract]

METHODS: Registry[Method] = Registry("method", "fedssl.methods")
register = METHODS.register


def check_task(method: str, data: str) -> None:
    """Check that a method serves the task that a data set asks for. Raises ConfigError with those that do."""
    task = SOURCES.get(data).task
    if task not in METHODS.get(method).tasks:
        fit = ", ".join(name for name in METHODS.names() if task in METHODS.get(name).tasks)
        raise ConfigError("method", method, f"one that serves the task {task} of data={data}: {fit or 'there is none'}")
