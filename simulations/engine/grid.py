"""A Flower Grid whose nodes are simulated clients, run by whatever executor it is given."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from safetensors.torch import load_file, save_file

from clients import memory as client_memory
from fedssl.federation import Memory
from simulations.engine import internals


@dataclass(frozen=True)
class ClientTask:
    """A message for one client, and the client's state before it."""

    client_id: int
    message: Message
    state: RecordDict


@dataclass(frozen=True)
class Answer:
    """A client's reply, and its state after it: None where it did not change or the call failed."""

    client_id: int
    reply: Message
    state: RecordDict | None


class Executor(Protocol):
    """Runs clients; gives one answer a task, in any order, within the timeout."""

    @property
    def num_workers(self) -> int:
        """Return the number of processes that run clients."""

    def run(self, tasks: list[ClientTask], timeout: float) -> Iterator[Answer]:
        """Run the tasks; a client that fails or is late is answered for by an error."""

    def close(self) -> None:
        """End all processes."""


class LocalGrid(Grid):
    """Delivers messages to simulated clients and holds their states between messages."""

    def __init__(self, num_clients: int, executor: Executor, memory_cap: int = 2**30) -> None:
        self.num_clients = num_clients
        self.executor = executor
        self.on_reply: Callable[[int], None] = lambda _: None
        self._states = StateStore(memory_cap)
        self._replies: dict[str, Message] = {}
        self._run = Run.create_empty(internals.RUN_ID)
        internals.identify()

    @property
    def num_workers(self) -> int:
        """Give the number of processes that run clients."""
        return self.executor.num_workers

    @property
    def handover_round(self) -> int | None:
        """Return the round in which workers took over from this process, None if they did not."""
        return getattr(self.executor, "handover_round", None)

    def set_run(self, run: Run) -> None:
        """Set the run that this grid serves."""
        self._run = run

    @property
    def run(self) -> Run:
        """Give the run that this grid serves."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Build a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Give the node ids of all clients."""
        return range(internals.node_of(0), internals.node_of(self.num_clients))

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Give all clients with the names that say who they are."""
        return map(internals.node_info, range(self.num_clients))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients at once and keep the replies."""
        replies = list(self.send_and_receive(messages))
        for reply in replies:
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [reply.metadata.reply_to_message_id for reply in replies]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Give the kept replies to the named messages."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run the clients and give their replies; late and failed ones reply with an error."""
        tasks = []
        for message in messages:
            internals.give_id(message)
            client_id = internals.client_of(message.metadata.dst_node_id)
            tasks.append(ClientTask(client_id, message, self._states.get(client_id)))
        replies = []
        for answer in self.executor.run(tasks, timeout if timeout is not None else float("inf")):
            if answer.state is not None:
                self._states.put(answer.client_id, answer.state)
            replies.append(answer.reply)
            self.on_reply(answer.client_id)
        return replies

    def memories(self) -> dict[int, Memory]:
        """Give the memory of every client that has one."""
        return {client_id: client_memory.read(state) for client_id, state in self._states.items()}

    def restore_memories(self, memories: dict[int, Memory]) -> None:
        """Replace all clients' memories."""
        self._states.clear()
        for client_id, memory in memories.items():
            state = RecordDict()
            client_memory.write(state, memory)
            self._states.put(client_id, state)


class StateStore:
    """Clients' states by id; past `cap` bytes the longest unused go to a temporary folder."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._held: dict[int, RecordDict] = {}
        self._sizes: dict[int, int] = {}
        self._spilled: dict[int, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def get(self, client_id: int) -> RecordDict:
        """Give a client's state; a new one for a client that has none."""
        if client_id in self._spilled:
            return self._read(client_id)
        if client_id in self._held:
            self._held[client_id] = self._held.pop(client_id)
            return self._held[client_id]
        return RecordDict()

    def put(self, client_id: int, state: RecordDict) -> None:
        """Replace a client's state; an empty one takes no space."""
        self._held.pop(client_id, None)
        self._sizes.pop(client_id, None)
        if client_id in self._spilled:
            self._spilled.pop(client_id).unlink()
        if not len(state):
            return
        self._held[client_id] = state
        self._sizes[client_id] = _size(state)
        while sum(self._sizes.values()) > self.cap and len(self._held) > 1:
            self._spill(next(iter(self._held)))

    def items(self) -> Iterator[tuple[int, RecordDict]]:
        """Give all states in order of client ids."""
        for client_id in sorted((*self._held, *self._spilled)):
            yield client_id, self._held.get(client_id) or self._read(client_id)

    def clear(self) -> None:
        """Forget all states."""
        for client_id in (*self._held, *self._spilled):
            self.put(client_id, RecordDict())

    def _spill(self, client_id: int) -> None:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="fedssl-memory-")
        memory = client_memory.read(self._held.pop(client_id))
        self._sizes.pop(client_id)
        tensors = {name: value for name, value in memory.items() if hasattr(value, "numpy")}
        values = {name: value for name, value in memory.items() if name not in tensors}
        path = Path(self._folder.name) / f"{client_id}.safetensors"
        save_file(tensors, path, metadata={"values": json.dumps(values)})
        self._spilled[client_id] = path

    def _read(self, client_id: int) -> RecordDict:
        from safetensors import safe_open

        path = self._spilled[client_id]
        with safe_open(path, "pt") as file:
            values: dict[str, Any] = json.loads(file.metadata()["values"])
        state = RecordDict()
        client_memory.write(state, {**{k: t.clone() for k, t in load_file(path).items()}, **values})
        return state


def _size(state: RecordDict) -> int:
    held = (array for record in state.array_records.values() for array in record.values())
    return sum(getattr(array, "held", array.numpy()).nbytes for array in held) + 256
