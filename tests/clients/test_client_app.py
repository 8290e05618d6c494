"""Tests of clients.app: a message in, a message out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toys
from flwr.app import ConfigRecord, Context, Message, RecordDict

from clients import app, memory
from fedssl.assembly import ALLOW_CODE
from fedssl.config import Experiment, sha256, to_json
from fedssl.federation import Payload, State, Update
from fedssl.wire import decode, encode, tensors_of
from simulations.engine import internals


def state_of(experiment: Experiment) -> State:
    """Give the initial global model."""
    return {name: t.clone() for name, t in app.load(to_json(experiment)).model.state_dict().items()}


def ask(
    chosen: Experiment,
    message_type: str = "train.train",
    *,
    state: State | None = None,
    client_id: int = 0,
    kept: RecordDict | None = None,
    **changed: Any,
) -> tuple[Message, Context]:
    """Send one message to the client's app; give its reply and its context afterwards."""
    text = to_json(chosen)
    phase = "evaluate" if message_type == "evaluate" else "train"
    content = RecordDict(
        {
            "experiment": ConfigRecord({"json": text, "sha256": sha256(text)}),
            "step": ConfigRecord({"exchange": "train", "round": 1, "num_rounds": 3, "phase": phase}),
            **changed,
        }
    )
    if state is not None:
        content = RecordDict({**content, **encode(Payload(state), app.to_arrays, ConfigRecord)})
    message = Message(content, dst_node_id=internals.node_of(client_id), message_type=message_type)
    internals.give_id(message)
    context = internals.client_context(client_id, chosen.clients, kept if kept is not None else RecordDict())
    return app.create_app()(message, context), context


def update_of(reply: Message) -> Update:
    return decode(Update, reply.content, lambda _, record: tensors_of(record))


def test_a_round_at_one_client():
    chosen = toys.experiment()
    state = state_of(chosen)
    reply, context = ask(chosen, state=state, client_id=2)
    update = update_of(reply)
    assert (update.client_id, update.metrics) == (2, {"loss": (2.0, 2.0)})
    for name, tensor in state.items():
        assert torch.equal(update.state[name], tensor + 3)
    assert memory.read(context.state)["rounds"] == 1
    assert reply.content.config_records["client"]["memory"] == 2


def test_a_phase_that_does_not_exist_is_refused():
    step = ConfigRecord({"exchange": "train", "round": 1, "num_rounds": 3, "phase": "guess"})
    with pytest.raises(app.ClientError, match=r"step\.phase='guess' is not train or evaluate"):
        ask(toys.experiment(), state=state_of(toys.experiment()), step=step)


def test_memory_is_handed_on():
    chosen = toys.experiment()
    kept = RecordDict()
    memory.write(kept, {"rounds": 4, "mine": torch.ones(2)})
    _, context = ask(chosen, state=state_of(chosen), kept=kept)
    found = memory.read(context.state)
    assert found["rounds"] == 5
    assert found["mine"].tolist() == [1.0, 1.0]


def test_a_failure_carries_the_clients_traceback_and_leaves_memory_as_it_was():
    chosen = toys.experiment(method={"name": "toy", "fault": "raise", "culprit": 0})
    kept = RecordDict()
    memory.write(kept, {"rounds": 4})
    with pytest.raises(app.ClientError) as caught:
        ask(chosen, state=state_of(chosen), kept=kept)
    assert "RuntimeError: the disk at this client is on fire" in str(caught.value)
    assert "in spoil" in str(caught.value)
    assert memory.read(kept) == {"rounds": 4}


def test_memory_that_cannot_be_kept_is_a_failure_that_leaves_memory_as_it_was():
    chosen = toys.experiment(method={"name": "toy", "fault": "raise_late", "culprit": 0})
    kept = RecordDict()
    memory.write(kept, {"rounds": 4})
    with pytest.raises(app.ClientError, match="memory 'unsendable' is a object"):
        ask(chosen, state=state_of(chosen), kept=kept)
    assert memory.read(kept) == {"rounds": 4}


def test_an_experiment_that_does_not_fit_its_hash_is_refused():
    wire = ConfigRecord({"json": to_json(toys.experiment()), "sha256": "0" * 64})
    with pytest.raises(app.ClientError, match="does not fit its sha256"):
        ask(toys.experiment(), state={}, experiment=wire)


def test_code_from_the_wire_is_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch):
    source = "raise RuntimeError('code from the wire ran')"
    monkeypatch.delenv(ALLOW_CODE, raising=False)
    with pytest.raises(app.ClientError, match=r"method_file='mine\.py': must be empty here"):
        ask(toys.experiment(method_file="mine.py", method_source=source), "query.join")
    monkeypatch.setenv(ALLOW_CODE, "1")
    with pytest.raises(app.ClientError, match="code from the wire ran"):
        ask(toys.experiment(method_file="mine.py", method_source=source), "query.join")


@pytest.mark.parametrize("client_id", [-1, 4])
def test_a_client_outside_the_federation_is_refused(client_id: int):
    with pytest.raises(app.ClientError, match=f"client {client_id} is not one of 4 clients"):
        ask(toys.experiment(), "query.join", client_id=client_id)


def test_a_node_without_an_id_is_told_how_to_start():
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
    with pytest.raises(ValueError, match="--node-config 'partition-id=0'"):
        app.client_id_of(context)


def test_join_says_who_the_node_is():
    reply, _ = ask(toys.experiment(), "query.join", client_id=3)
    told = reply.content.config_records["client"]
    data = app.load(to_json(toys.experiment())).data.client(3)
    assert (told["id"], told["protocol"]) == (3, 1)
    assert (told["num_labelled"], told["num_unlabelled"]) == (len(data.labelled), len(data.unlabelled))


def test_the_memory_query_gives_a_hash_only():
    kept = RecordDict()
    memory.write(kept, {"secret": 5})
    reply, _ = ask(toys.experiment(), "query.memory", kept=kept)
    assert dict(reply.content.config_records["client"]) == {"digest": memory.digest({"secret": 5})}
    assert list(reply.content) == ["client"]


def test_kept_tensors_never_leave_and_come_back_from_memory():
    chosen = toys.experiment(personalization={"name": "local_head"})
    state = state_of(chosen)
    first, context = ask(chosen, state=state)
    heads = {name for name in state if name.startswith("head.")}
    assert set(update_of(first).state) == set(state) - heads
    assert len(heads) == 2
    kept = memory.read(context.state)
    for name in heads:
        assert torch.equal(kept[app.KEPT + name], state[name] + 1)
    shared = {name: tensor for name, tensor in state.items() if name not in heads}
    second, context = ask(chosen, state=shared, kept=context.state)
    assert set(update_of(second).state) == set(shared)
    for name in heads:
        assert torch.equal(memory.read(context.state)[app.KEPT + name], state[name] + 1 + 1)


def test_a_kept_tensor_wins_over_one_that_is_sent():
    chosen = toys.experiment(personalization={"name": "local_head"})
    state = state_of(chosen)
    _, context = ask(chosen, state=state)
    _, context = ask(chosen, state={name: tensor * 0 for name, tensor in state.items()}, kept=context.state)
    kept = memory.read(context.state)[app.KEPT + "head.bias"]
    assert torch.equal(kept, state["head.bias"] + 1 + 1)


def test_scoring_changes_no_memory_and_counts_the_clients_own_samples():
    chosen = toys.experiment(personalization={"name": "finetune", "epochs": 1})
    kept = RecordDict()
    memory.write(kept, {"rounds": 4})
    reply, context = ask(chosen, "evaluate", state=state_of(chosen), kept=kept)
    data = app.load(to_json(chosen)).data.client(0)
    assert reply.content.metric_records["test"]["num_examples"] == len(data.test()[1])
    assert 0.0 <= reply.content.metric_records["test"]["accuracy"] <= 1.0
    assert memory.read(context.state) == {"rounds": 4}


@pytest.mark.parametrize("method", ["fedavg", "fixmatch"])
def test_a_client_without_labels_answers(method: str):
    chosen = toys.experiment(method={"name": method}, labels={"name": "client_rate", "rate": 0.0})
    state = state_of(chosen)
    reply, _ = ask(chosen, state=state, client_id=1)
    update = update_of(reply)
    assert update.num_examples == (0 if method == "fedavg" else app.load(to_json(chosen)).data.client(1).num_examples)
    assert set(update.state) == set(state)


@pytest.mark.parametrize("message_type", ["train.train", "evaluate"])
def test_all_test_samples_are_scored_if_asked_in_training_too(message_type: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toys.Toy, "scores_trained_model", True)
    number = {}
    for personal_on in ("own", "all"):
        chosen = toys.experiment(evaluation={"personal_on": personal_on})
        reply, _ = ask(chosen, message_type, state=state_of(chosen))
        number[personal_on] = reply.content.metric_records["test"]["num_examples"]
    data = app.load(to_json(chosen)).data.client(0)
    assert number == {"own": len(data.indices.test), "all": len(data.dataset.test)}
    assert number["own"] < number["all"]
