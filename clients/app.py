"""The Flower ClientApp: a message in, one hook of the method, a message out."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients import memory as client_memory
from clients.local_data import LocalData
from fedssl.assembly import assemble, initial_model
from fedssl.calibration.base import CalibrationHook
from fedssl.config import Experiment, from_json, sha256
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, Step, Update
from fedssl.methods.base import METHODS
from fedssl.personalization.base import Personal
from fedssl.rng import Rng
from fedssl.runtime import choose_device, one_thread, use_precision
from fedssl.tasks.base import inputs
from fedssl.wire import PROTOCOL, array_record, decode, encode, filled, tensors_of

KEPT = "kept."
"""Prefix of the tensors that the personalization hook keeps, inside the client's memory."""

Handler = Callable[[Message, Context], Message]


class ClientError(RuntimeError):
    """A failure at a client; its text is the client's whole traceback, since Flower carries only a text."""


class Runtime:
    """What a process needs to act for any client of one experiment: data, method and one resident model."""

    def __init__(self, experiment: Experiment) -> None:
        one_thread()
        self.experiment = experiment
        self.device = choose_device(experiment.device)
        self.parts = assemble(experiment)
        self.data = LocalData(experiment, self.device)
        self.model = initial_model(experiment, self.data.dataset, self.device)
        self.parts.personalization.prepare(self.model)
        use_precision(self.model, experiment.precision)
        self._decoded: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {}

    def payload(self, content: RecordDict) -> Payload:
        """Decode what was sent; arrays that a round's clients share are decoded once."""
        return decode(self.parts.method.payload_type, content, self._tensors)

    def _tensors(self, name: str, record: ArrayRecord) -> dict[str, torch.Tensor]:
        held, tensors = self._decoded.get(name, (None, {}))
        if held is not record:
            tensors = {k: t.to(self.device) for k, t in tensors_of(record).items()}
            self._decoded[name] = (record, tensors)
        return tensors

    def step(self, content: RecordDict, client_id: int) -> Step:
        """Give the place in the run that the message names."""
        sent = content["step"]
        round_ = int(sent["round"])  # type: ignore[arg-type]
        rng = Rng(self.experiment.seed, round_, client_id)
        num_rounds, phase = int(sent["num_rounds"]), sent["phase"]  # type: ignore[arg-type]
        if phase not in ("train", "evaluate"):
            raise ValueError(f"step.phase={phase!r} is not train or evaluate")
        return Step(str(sent["exchange"]), round_, num_rounds, phase, rng)  # type: ignore[arg-type]

    def with_kept(self, payload: Payload, memory: Memory) -> tuple[Payload, Memory]:
        """Put the client's kept tensors into the payload, and give the memory without them."""
        kept = {name[len(KEPT) :]: value for name, value in memory.items() if name.startswith(KEPT)}
        rest = {name: value for name, value in memory.items() if not name.startswith(KEPT)}
        return (replace(payload, state={**payload.state, **kept}) if kept else payload), rest

    def without_kept(self, payload: Payload, update: Update, memory: Memory) -> tuple[Update, Memory]:
        """Move the tensors that never leave from the update into the memory, with those that did not train."""
        keeps = self.parts.personalization.keeps
        kept = {KEPT + name: tensor for name, tensor in {**payload.state, **update.state}.items() if keeps(name)}
        if kept:
            update = replace(update, state={k: t for k, t in update.state.items() if not keeps(k)})
        return update, {**memory, **kept}


@functools.lru_cache(maxsize=2)
def load(text: str) -> Runtime:
    """Give the runtime of an experiment's JSON, built once a process."""
    return Runtime(from_json(text))


def client_id_of(context: Context) -> int:
    """Give the client id that the node was started with. Raises ValueError if it has none."""
    value = context.node_config.get("partition-id")
    if value is None:
        raise ValueError("this node has no client id: start it with --node-config 'partition-id=0'")
    return int(value)


def guarded(handler: Callable[[Message, Context], RecordDict]) -> Handler:
    """Turn any exception into one whose text is the whole traceback."""

    @functools.wraps(handler)
    def act(message: Message, context: Context) -> Message:
        try:
            return Message(handler(message, context), reply_to=message)
        except Exception:
            raise ClientError(traceback.format_exc()) from None

    return act


def runtime_of(message: Message) -> Runtime:
    """Give the runtime of the experiment in the message. Raises ValueError if its text does not fit its hash."""
    sent = message.content["experiment"]
    if sha256(str(sent["json"])) != sent["sha256"]:
        raise ValueError("the experiment in the message does not fit its sha256")
    return load(str(sent["json"]))


def to_arrays(state: Any) -> ArrayRecord:
    """Give Flower's record of tensors."""
    record: ArrayRecord = array_record(state, ArrayRecord, Array)
    return record


@guarded
def train(message: Message, context: Context) -> RecordDict:
    """Train the method's client half on this client's data; memory changes only if all of it succeeds."""
    runtime = runtime_of(message)
    client_id = client_id_of(context)
    data = runtime.data.client(client_id)
    step = runtime.step(message.content, client_id)
    memory = client_memory.read(context.state)
    payload, rest = runtime.with_kept(runtime.payload(message.content), memory)
    hook, parts = runtime.parts.calibration, runtime.parts
    statistics: dict[str, torch.Tensor] = {}
    if hook.on == "received" and type(hook).summarise is not CalibrationHook.summarise:
        runtime.model.load_state_dict(payload.state)
        statistics = hook.summarise(runtime.model, data, step.rng)
    update, rest = parts.method.train_client(runtime.model, payload, rest, data, step)
    if hook.on == "trained":
        statistics = hook.summarise(runtime.model, data, step.rng)
    update = replace(update, statistics={**update.statistics, **statistics})
    due = step.round_ == step.num_rounds or step.round_ % runtime.experiment.evaluation.every == 0
    scored = due and parts.method.scores_trained_model
    scores = _scores(runtime, data, Personal(runtime.model)) if scored else {}
    update, rest = runtime.without_kept(payload, update, rest)
    client_memory.write(context.state, rest)
    content = encode(update, to_arrays, ConfigRecord)
    client = filled(ConfigRecord, {"memory": len(rest)})
    answer: RecordDict = filled(RecordDict, {**content, **scores, "client": client})
    return answer


@guarded
def evaluate(message: Message, context: Context) -> RecordDict:
    """Score the client's personalised model on its own test and validation samples; without one, give no scores."""
    runtime = runtime_of(message)
    client_id = client_id_of(context)
    data = runtime.data.client(client_id)
    step = runtime.step(message.content, client_id)
    payload, rest = runtime.with_kept(runtime.payload(message.content), client_memory.read(context.state))
    hook, method = runtime.parts.personalization, runtime.parts.method
    own_model = method.personalize(runtime.model, payload, rest, data, step, hook)
    return RecordDict(dict(_scores(runtime, data, own_model)) if own_model else {})


@guarded
def join(message: Message, context: Context) -> RecordDict:
    """Say who this node is: client id, protocol version, sample counts."""
    data = runtime_of(message).data.client(client_id_of(context))
    return RecordDict(
        {
            "client": ConfigRecord(
                {
                    "id": data.client_id,
                    "protocol": PROTOCOL,
                    "num_labelled": len(data.labelled),
                    "num_unlabelled": len(data.unlabelled),
                }
            )
        }
    )


@guarded
def memory(message: Message, context: Context) -> RecordDict:
    """Give the hash of the client's memory, not the memory."""
    del message
    return RecordDict({"client": ConfigRecord({"digest": client_memory.digest(client_memory.read(context.state))})})


def _scores(runtime: Runtime, data: ClientData, own_model: Personal) -> dict[str, MetricRecord]:
    """Score on the client's test samples, or all if `evaluation.personal_on` says so, and on its validation samples."""
    task, size, found = runtime.parts.task, runtime.experiment.evaluation.batch_size, {}
    dataset, indices = data.dataset, data.indices
    if runtime.experiment.evaluation.personal_on == "all":
        indices = replace(indices, test=np.arange(len(dataset.test)))
    held = {"test": (dataset.test, indices.test), "validation": (dataset.train, indices.validation)}
    for split, (samples, index) in held.items():
        if len(index):
            answers = task.predict(own_model.model, inputs(dataset, samples, index, size, runtime.device))
            values = task.score(answers, task.truth(dataset, samples, index), data.kinds)
            facts = own_model.facts if split == "test" else {}
            found[split] = MetricRecord({**values, **facts, "num_examples": len(index)})
    return found


def create_app() -> ClientApp:
    """Build the ClientApp with one train handler for each exchange that any registered method names."""
    app = ClientApp()
    METHODS.load()
    exchanges = {name for method in METHODS.names() for name in METHODS.get(method).exchanges}
    for exchange in sorted(exchanges):
        app.train(exchange)(train)
    app.evaluate()(evaluate)
    app.query("join")(join)
    app.query("memory")(memory)
    return app


app = create_app()
