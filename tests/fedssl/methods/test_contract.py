"""The contract that every method keeps; a new one is under test as soon as its file is there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from clients import memory as client_memory
from fedssl.data.base import Indices
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, State, Step, Update
from fedssl.methods.base import METHODS, Method
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.personalization.base import PERSONALIZATIONS
from fedssl.rng import Rng
from fedssl.wire import array_record, decode, encode, tensors_of
from server.aggregation import Aggregator

MakeClient = Callable[..., ClientData]
NAMES = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("fedssl.methods.")]
HELD = {"both": (6, 12), "no labels": (0, 12), "no unlabelled": (12, 0), "one sample": (1, 0), "nothing": (0, 0)}
every_method = pytest.mark.parametrize("name", NAMES)
every_client = pytest.mark.parametrize("held", HELD)


def make_method(name: str) -> Method:
    small = {"batch_size": 4, "warm_up": 0}
    known = {item.name for item in fields(METHODS.get(name))}
    return METHODS.create({"name": name, **{key: value for key, value in small.items() if key in known}})


def kind_of(name: str) -> dict[str, bool]:
    """Give which data a method is for, as `client` takes it."""
    tasks = METHODS.get(name).tasks
    return {"sensing": "classification" not in tasks and "sensing" in tasks, "detecting": tasks == ("detection",)}


def make_model(data: ClientData) -> torch.nn.Module:
    pictures = {"name": "resnet", "width": 2}
    sensing = {"name": "autoencoder", "sizes": [8, 4], "hidden": 4}
    scenes = {"name": "detector", "width": 2}
    plain = pictures if len(data.dataset.shape) == 3 else sensing
    spec = MODELS.create(scenes if data.dataset.train.holds_boxes else plain)
    return build_model(spec, data.dataset.shape, 3, Rng(0).torch("initial weights"))


def server_of(data: ClientData) -> ClientData:
    """Give six labelled samples of the server's own, the last ones of the data set."""
    mine = np.arange(len(data.dataset.train) - 6, len(data.dataset.train), dtype=np.int64)
    indices = Indices(mine, np.zeros(0, np.int64))
    return replace(data, client_id=-1, indices=indices, given=data.dataset.train.y)


class Trial:
    """One method at one client, round after round, with copies of what it was given."""

    def __init__(self, name: str, data: ClientData, *, seed: int = 0) -> None:
        self.method = make_method(name)
        self.model = make_model(data)
        self.server_data = server_of(data)
        self.server = self.method.init_server(self.model, self.server_data, Rng(seed), 2)
        self.data = data
        self.seed = seed
        self.memory: Memory = {}

    def step(self, exchange: str, round_: int) -> Step:
        return Step(exchange, round_, 3, "train", Rng(self.seed, round_, self.data.client_id))

    def round(self, round_: int = 1) -> Iterator[tuple[Payload, Update]]:
        """Give payload and update of each exchange."""
        for exchange in self.method.exchanges:
            step = self.step(exchange, round_)
            payload = self.method.downlink(self.server, self.data.client_id, step)
            update, self.memory = self.method.train_client(self.model, payload, self.memory, self.data, step)
            yield payload, update

    def visit(self) -> None:
        """Take the client through a round and the server's half of it."""
        aggregator = Aggregator({"name": "FedAvg"}, frozenset(n for n, _ in self.model.named_parameters()))
        for (_, update), exchange in zip(self.round(), self.method.exchanges, strict=True):
            step = replace(self.step(exchange, 1), rng=Rng(self.seed, 1))
            before = self.server.model
            server = self.method.aggregate(
                self.server, [update], step, lambda chosen, held=before: aggregator.average(held, chosen, 1)
            )
            self.server = self.method.train_server(server, self.model, self.server_data, [update], step)

    def updates(self) -> list[Update]:
        return [update for round_ in (1, 2) for _, update in self.round(round_)]


def skip_unless_it_trains(trial: Trial) -> None:
    step = trial.step(trial.method.exchanges[0], 1)
    payload = trial.method.downlink(trial.server, 1, step)
    if not trial.method.uplink(trial.server, payload, step):
        pytest.skip("its clients do not train")


def same(one: Any, other: Any) -> bool:
    """Say whether two nests of tensors and values are equal bit for bit."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, (Update, Payload)):
        return type(one) is type(other) and same(vars(one), vars(other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@every_client
@every_method
def test_an_update_has_the_shapes_that_the_server_waits_for(name: str, held: str, client: MakeClient):
    trial = Trial(name, client(*HELD[held], **kind_of(name)))
    for payload, update in trial.round():
        template = trial.method.uplink(trial.server, payload, trial.step("train", 1))
        assert {n: (t.shape, t.dtype) for n, t in update.state.items()} == {
            n: (t.shape, t.dtype) for n, t in template.items()
        }
        assert all(bool(torch.isfinite(t).all()) for t in update.state.values())
        assert update.client_id == 1
        assert type(update.num_examples) is int
        assert 0 <= update.num_examples <= trial.data.num_examples
        for value, count in update.metrics.values():
            assert np.isfinite(value)
            assert count >= 0


@every_client
@every_method
def test_what_a_client_is_given_stays_as_it_was(name: str, held: str, client: MakeClient):
    trial = Trial(name, client(*HELD[held], **kind_of(name)))
    list(trial.round())
    step = trial.step(trial.method.exchanges[0], 2)
    payload = trial.method.downlink(trial.server, 1, step)
    memory, data = trial.memory, trial.data
    before = copy.deepcopy((vars(payload), memory, data.given, data.indices.labelled, data.dataset.train.x))
    trial.method.train_client(trial.model, payload, memory, data, step)
    assert same(vars(payload), before[0])
    assert same(memory, before[1])
    for now, then in zip((data.given, data.indices.labelled, data.dataset.train.x), before[2:], strict=True):
        np.testing.assert_array_equal(now, then)


@every_method
def test_the_same_seed_gives_the_same_bits_whatever_the_scratch_model_held(name: str, client: MakeClient):
    data = client(6, 12, **kind_of(name))
    first, second = Trial(name, data), Trial(name, data)
    with torch.no_grad():
        for tensor in second.model.state_dict().values():
            tensor.fill_(7)
    assert same(first.updates(), second.updates())
    assert same(first.memory, second.memory)


@every_method
def test_another_seed_gives_other_bits(name: str, client: MakeClient):
    data = client(6, 12, **kind_of(name))
    first, second = Trial(name, data), Trial(name, data, seed=1)
    second.server = first.server
    skip_unless_it_trains(first)
    assert not same(first.updates(), second.updates())


@every_method
def test_training_changes_the_model(name: str, client: MakeClient):
    trial = Trial(name, client(6, 12, **kind_of(name)))
    skip_unless_it_trains(trial)
    payload, update = next(trial.round())
    changed = [n for n, t in update.state.items() if t.is_floating_point() and not torch.equal(t, payload.state[n])]
    assert changed


@every_method
def test_no_global_generator_is_touched(name: str, client: MakeClient):
    trial = Trial(name, client(6, 12, **kind_of(name)))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    trial.updates()
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@every_client
@every_method
def test_update_payload_and_memory_survive_the_wire(name: str, held: str, client: MakeClient):
    trial = Trial(name, client(*HELD[held], **kind_of(name)))
    for sent in next(trial.round()):
        records = encode(sent, lambda state: array_record(state, ArrayRecord, Array), ConfigRecord)
        plain = {
            key: ArrayRecord({n: Array(a.numpy()) for n, a in record.items()})
            if isinstance(record, ArrayRecord)
            else record
            for key, record in records.items()
        }
        assert same(decode(type(sent), plain, lambda _, record: tensors_of(record)), sent)
    state = RecordDict()
    client_memory.write(state, trial.memory)
    assert client_memory.digest(client_memory.read(state)) == client_memory.digest(trial.memory)


@every_method
def test_one_client_alone_is_its_own_average(name: str, client: MakeClient):
    trial = Trial(name, client(6, 12, **kind_of(name)))
    if type(trial.method).aggregate is not Method.aggregate:
        pytest.skip("has an aggregation of its own")
    _, update = next(trial.round())
    aggregator = Aggregator({"name": "FedAvg"}, frozenset(n for n, _ in trial.model.named_parameters()))
    step = trial.step("train", 1)
    made = trial.method.aggregate(trial.server, [update], step, lambda u: aggregator.average(trial.server.model, u, 1))
    assert set(made.model) == set(trial.server.model)
    for key, tensor in update.state.items():
        torch.testing.assert_close(made.model[key], tensor, rtol=1e-6, atol=1e-6)


@every_method
def test_a_method_says_whether_it_takes_the_average(name: str, client: MakeClient):
    trial, asked = Trial(name, client(6, 12, **kind_of(name))), []
    for (_, update), exchange in zip(trial.round(), trial.method.exchanges, strict=True):

        def average(updates: Sequence[Update]) -> State:
            asked.append(len(updates))
            return updates[0].state

        trial.server = trial.method.aggregate(trial.server, [update], trial.step(exchange, 1), average)
    assert bool(asked) is trial.method.takes_average


@every_method
def test_the_server_goes_through_a_round_without_any_answer(name: str, client: MakeClient):
    trial = Trial(name, client(6, 12, **kind_of(name)))
    trial.visit()
    shapes = {key: tensor.shape for key, tensor in trial.server.model.items()}
    for exchange in trial.method.exchanges:
        step = replace(trial.step(exchange, 2), rng=Rng(0, 2))
        trial.server = trial.method.train_server(trial.server, trial.model, trial.server_data, [], step)
    assert {key: tensor.shape for key, tensor in trial.server.model.items()} == shapes
    assert all(torch.isfinite(tensor).all() for tensor in trial.server.model.values())


@every_method
def test_a_clients_own_model_is_made_without_changing_what_it_was_sent(name: str, client: MakeClient):
    trial = Trial(name, client(6, 12, **kind_of(name)))
    trial.visit()
    step = Step(trial.method.exchanges[-1], 1, 3, "evaluate", Rng(0, 1, 1))
    payload = trial.method.downlink(trial.server, 1, step)
    before, memory = copy.deepcopy(vars(payload)), copy.deepcopy(trial.memory)
    own_hook = next(iter(trial.method.personalizations), "finetune")
    if own_hook == "none":
        pytest.skip("no hook that it works with trains")
    hook = PERSONALIZATIONS.create({"name": own_hook, "epochs": 1})
    made = trial.method.personalize(trial.model, payload, trial.memory, trial.data, step, hook)
    assert made is not None
    assert same(vars(payload), before)
    assert same(trial.memory, memory)
    assert not same(made.model.state_dict(), before["state"])
