"""All that touches Flower's internals: who we are, contexts, message ids. A test fails when Flower changes."""

from __future__ import annotations

import uuid

from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
SERVER_NODE_ID = 1
FIRST_CLIENT_NODE_ID = 2
CLIENT_FAILED = 1


def identify() -> None:
    """Say who this process is; without it Flower refuses to build a Message."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID


def node_of(client_id: int) -> int:
    """Give the node id of a simulated client."""
    return FIRST_CLIENT_NODE_ID + client_id


def client_of(node_id: int) -> int:
    """Give the client id of a simulated node."""
    return node_id - FIRST_CLIENT_NODE_ID


def node_info(client_id: int) -> NodeInfo:
    """Give what a grid tells of a simulated client: its name carries the id."""
    return NodeInfo(node_id=node_of(client_id), name=f"client-{client_id}")


def client_context(client_id: int, num_clients: int, state: RecordDict) -> Context:
    """Give the context that a simulated client's app sees."""
    return Context(
        run_id=RUN_ID,
        node_id=node_of(client_id),
        node_config={"partition-id": client_id, "num-partitions": num_clients},
        state=state,
        run_config={},
    )


def server_context(experiment: str, *, resume: bool) -> Context:
    """Give the context that the server's app sees."""
    return Context(
        run_id=RUN_ID,
        node_id=SERVER_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config={"experiment": experiment, "resume": resume},
    )


def give_id(message: Message) -> str:
    """Give a message its id, as Flower's link does, and return it."""
    name = uuid.uuid4().hex
    message.metadata.__dict__["_message_id"] = name
    return name


def error_reply(message: Message, reason: str) -> Message:
    """Give the reply of a client that failed."""
    return Message(Error(code=CLIENT_FAILED, reason=reason), reply_to=message)
