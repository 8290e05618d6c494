"""Small experiments, and a method that misbehaves at one client, for tests of clients and server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message, RecordDict

from fedssl.config import Experiment, from_dict, option
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, Step, Update
from fedssl.methods.base import METHODS, Method

METHODS.load()
FAULTS = ("", "raise", "raise_late", "nan", "shape", "extra", "missing", "dtype", "metric", "interrupt")


@METHODS.register("toy")
@dataclass
class Toy(Method):
    """Adds client id + 1 to every float tensor; client `culprit` does what `fault` says, from `fault_round` on."""

    fault: str = option("", "what the culprit does", choices=FAULTS)
    culprit: int = option(1, "the client that misbehaves; -1 = all", low=-1)
    fault_round: int = option(1, "first round of misbehaviour", low=1)

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Give the sum, and count the rounds in memory."""
        state = {k: t + (data.client_id + 1) if t.is_floating_point() else t for k, t in payload.state.items()}
        memory = {**memory, "rounds": int(memory.get("rounds", 0)) + 1, "last": torch.tensor([float(step.round_)])}
        update = Update(data.client_id, data.num_examples, state, metrics={"loss": (2.0 * step.round_, 2.0)})
        if self.culprit in (-1, data.client_id) and step.round_ >= self.fault_round:
            update = self.spoil(update, memory)
        return update, memory

    def spoil(self, update: Update, memory: Memory) -> Update:
        """Misbehave."""
        name, tensor = next(iter(update.state.items()))
        changed = {
            "nan": {name: tensor * float("nan")},
            "shape": {name: tensor[:-1]},
            "extra": {"unheard.of": torch.zeros(1)},
            "dtype": {name: tensor.double()},
        }.get(self.fault, {})
        state = {**update.state, **changed}
        if self.fault == "raise":
            raise RuntimeError("the disk at this client is on fire")
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        if self.fault == "raise_late":
            memory["unsendable"] = object()
        if self.fault == "missing":
            del state[name]
        metrics = {"loss": (float("inf"), 1.0)} if self.fault == "metric" else update.metrics
        return dataclasses.replace(update, state=state, metrics=metrics)


SMALL = ("data=digits", "model=resnet", "model.width=4", "rounds=3", "clients=4", "labels.count=5")


def small(*overrides: str) -> list[str]:
    """Give the overrides with those of a small run before them; an option goes with the choice it belongs to."""
    given = {text.split("=")[0] for text in overrides}
    keys = {text: text.split("=")[0] for text in SMALL}
    kept = [text for text, key in keys.items() if key not in given and key.split(".")[0] not in given]
    return [*kept, *overrides]


def experiment(**fields: Any) -> Experiment:
    """Give a tiny experiment: 4 clients, digits, a small MLP; `fields` replace its own."""
    values = {
        "method": {"name": "toy"},
        "data": {"name": "digits"},
        "model": {"name": "mlp", "hidden": 8, "layers": 1},
        "partition": {"name": "iid"},
        "labels": {"name": "client_rate"},
        "engine": {"name": "inline"},
        "clients": 4,
        "rounds": 3,
    }
    return from_dict({**values, **fields})


@contextmanager
def grid(num_clients: int) -> Iterator[Any]:
    """Give a grid that runs clients in this process."""
    from simulations.engine.grid import LocalGrid
    from simulations.engine.inline import InlineExecutor

    executor = InlineExecutor(num_clients)
    yield LocalGrid(num_clients, executor)
    executor.close()


def begun(chosen: Experiment) -> Any:
    """Give the server's `ServerRun` with its first state, before its first round."""
    from server.app import ServerRun
    from server.watcher import Silence

    made = ServerRun(chosen, Silence())
    made.begin()
    return made


def run(chosen: Experiment, directory: Path | None = None, *, resume: bool = False, watcher: Any = None) -> Any:
    """Run an experiment inline; give the server's `ServerRun`."""
    from server.app import ServerRun
    from server.watcher import Silence

    chosen = dataclasses.replace(chosen, out=str(directory) if directory else "")
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    made = ServerRun(chosen, watcher or Silence())
    with grid(chosen.clients) as nodes:
        made.start(nodes, resume=resume)
    return made


def reply_with(content: RecordDict, client_id: int = 0, message_type: str = "train.train") -> Message:
    """Give the reply of a client, as it arrives at the server."""
    from simulations.engine import internals

    asked = Message(RecordDict(), dst_node_id=internals.node_of(client_id), message_type=message_type)
    internals.give_id(asked)
    return Message(content, reply_to=asked)
