"""One Flower Strategy that drives any method: the round, its guards, its journal."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedssl.assembly import Components
from fedssl.config import Experiment
from fedssl.data.views.client_data import ClientData
from fedssl.federation import ServerState, State, Step, Update
from fedssl.methods.base import Method
from fedssl.rng import Rng
from fedssl.wire import array_record, encode, filled
from server import guards, sampling
from server.aggregation import Aggregator
from server.evaluation import RoundScores
from server.personal import PersonalScores
from server.round import Round, means, num_bytes

Phase = Literal["train", "evaluate"]


class RoundFailed(RuntimeError):
    """Too few clients answered well; the text holds every client's own traceback."""


class MethodStrategy(Strategy):
    """Carries the server half of a method; `start` is its loop, since Flower's cannot begin at a later round."""

    def __init__(self, experiment: Experiment, parts: Components, model: torch.nn.Module, wire: ConfigRecord) -> None:
        self.experiment = experiment
        self.parts = parts
        self.model = model
        self.server = ServerState({})
        self.wire = wire
        self.rng = Rng(experiment.seed)
        self.aggregator = Aggregator(experiment.aggregation, frozenset(name for name, _ in model.named_parameters()))
        self.nodes: dict[int, int] = {}
        self.clients: dict[int, int] = {}
        self.holders: set[int] = set()
        """Clients that hold the tensors which the personalization hook keeps, so that these need not be sent."""
        self.with_memory: set[int] = set()
        self.data: ClientData | None = None
        """The server's own labelled samples."""
        self.score: Callable[[ServerState], RoundScores] | None = None
        self.on_round: Callable[[Round], None] = lambda _: None
        self.current = Round(0, [])
        self._exchange = "train"
        self._phase: Phase = "train"
        self._asked_to_score: set[int] = set()
        self._unswept: set[int] = set()
        self._personal = PersonalScores()
        self._templates: dict[int, State] = {}
        self._encoded: dict[int, tuple[State, ArrayRecord]] = {}
        self._stripped: tuple[State, State] | None = None

    def summary(self) -> None:
        """Say nothing: the run's own progress display does."""

    def start(self, grid: Grid, *_: Any, first_round: int = 1, **__: Any) -> None:  # type: ignore[override]
        """Run rounds `first_round` to the last, from `server`. Raises RoundFailed, FederationError."""
        experiment = self.experiment
        self.nodes = sampling.discover(grid, experiment.clients, self.wire, experiment.deadline)
        self.clients = {node: client for client, node in self.nodes.items()}
        for round_ in range(first_round, experiment.rounds + 1):
            began = time.perf_counter()
            rng = self.rng.at(round_=round_)
            self._personal = PersonalScores()
            num_training = self.parts.method.num_training_clients(experiment.clients)
            self.current = Round(round_, sampling.sample(num_training, experiment.participation, rng))
            self.server = replace(self.server, metrics={})
            self._exchanges(grid, round_)
            self.current.train.update(self.server.metrics)
            self._evaluate(grid, round_)
            self.current.seconds = time.perf_counter() - began
            self.on_round(self.current)

    def _exchanges(self, grid: Grid, round_: int) -> None:
        for exchange in self.parts.method.exchanges:
            self._exchange = exchange
            messages = self.configure_train(round_, ArrayRecord(), ConfigRecord(), grid)
            self.aggregate_train(round_, grid.send_and_receive(messages, timeout=self.experiment.deadline))

    @contextlib.contextmanager
    def _swept(self, grid: Grid, round_: int) -> Iterator[None]:
        """Take all clients through all exchanges as often as the method asks; at the end the server is put back."""
        sweeps = self.parts.method.evaluation_visits()
        kept = self.server, self.aggregator
        self._unswept.clear()
        if sweeps:
            # Copies, so that a hook or strategy that works in place cannot reach what is kept.
            self.server, self.aggregator = copy.deepcopy(kept)
        self._phase = "evaluate"
        try:
            for _ in range(sweeps):
                self._unswept.clear()
                self.server = replace(self.server, metrics={})
                self._exchanges(grid, round_)
                self.current.train.update({f"sweep_{name}": value for name, value in self.server.metrics.items()})
            yield
        finally:
            self.server, self.aggregator = kept
            self._phase = "train"
            self._unswept.clear()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Give one message for each client of the round, or of the sweep, with what the method sends it."""
        del arrays, config, grid
        step = self._step(server_round, self._phase)
        self._templates, self._encoded = {}, {}
        asked: Iterable[int] = self.current.cohort if self._phase == "train" else self.nodes
        with self.current.server_at_work():
            return [self._message(client_id, step, f"train.{self._exchange}") for client_id in asked]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the good answers, in order of client ids, through the server's half; without any, its training."""
        step = self._step(server_round, self._phase)
        updates = self._accept(replies)
        if not updates and self._phase == "evaluate":
            return None, None
        parts, server = self.parts, self.server
        with self.current.server_at_work():
            if updates:
                server = parts.method.aggregate(
                    server, updates, step, lambda chosen: self.aggregator.average(server.model, chosen, server_round)
                )
                server = parts.method.calibrate(server, updates, step, parts.calibration)
            self.server = parts.method.train_server(server, self.model, self.data, updates, step)
        if self._phase == "train":
            self.current.train.update(means(updates))
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Give one message for every client, for the score of its personalised model.

        One that failed in the last sweep is left out: it may still have the model of an earlier one.
        """
        del arrays, config, grid
        step = self._step(server_round, "evaluate")
        asked = [client_id for client_id in self.nodes if client_id not in self._unswept]
        self._asked_to_score = set(asked)
        return [self._message(client_id, step, "evaluate") for client_id in asked]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Add the clients' `personal_` scores to the round's, as plain means over clients."""
        del server_round
        seen: set[int] = set()
        for client_id, reply in self._first_of_each(replies, self.nodes):
            seen.add(client_id)
            if reply.has_error():
                self.current.failed[client_id] = reply.error.reason or "evaluation failed"
            else:
                self._personal.collect(client_id, reply)
        for client_id in self._asked_to_score - seen:
            self.current.failed[client_id] = "no scores within the deadline"
        self._personal.add_to(self.current.evaluation)
        return None

    @cached_property
    def keeps_parts(self) -> bool:
        """Say whether some tensors stay at the clients, so that no whole global model exists."""
        return any(self.parts.personalization.keeps(name) for name in self.server.model)

    @property
    def only_personal(self) -> bool:
        """Say whether nothing but the clients' own models can be scored."""
        return self.keeps_parts or not self.parts.method.global_model

    def _evaluate(self, grid: Grid, round_: int) -> None:
        setting, last = self.experiment.evaluation, round_ == self.experiment.rounds
        due = last or round_ % setting.every == 0
        if due and self.score and not self.only_personal:
            self.current.evaluation = self.score(self.server)
        every = setting.personal_every or (setting.every if self.keeps_parts else 0)
        replies: Iterable[Message] = []
        self._asked_to_score = set()
        if self.personal and (last or (every and round_ % every == 0)):
            with self._swept(grid, round_):
                messages = self.configure_evaluate(round_, ArrayRecord(), ConfigRecord(), grid)
                replies = grid.send_and_receive(messages, timeout=self.experiment.deadline)
        self.aggregate_evaluate(round_, replies)

    @property
    def personal(self) -> bool:
        """Say whether clients make models of their own that are to be scored."""
        method = type(self.parts.method)
        return self.parts.personalization.name != "none" or method.personalize is not Method.personalize

    def _step(self, round_: int, phase: Phase) -> Step:
        rng = self.rng.at(round_=round_)
        return Step(self._exchange, round_, self.experiment.rounds, phase, rng)

    def _message(self, client_id: int, step: Step, message_type: str) -> Message:
        payload = self.parts.method.downlink(self.server, client_id, step)
        if message_type != "evaluate":
            template = self.parts.method.uplink(self.server, payload, step)
            self._templates[client_id] = self._without_kept(template) if self.keeps_parts else template
        if client_id in self.holders:
            payload = replace(payload, state=self._without_kept(payload.state))
        records = encode(payload, self._arrays, ConfigRecord)
        self.current.traffic.down += num_bytes(payload)
        place = {"exchange": step.exchange, "round": step.round_, "num_rounds": step.num_rounds, "phase": step.phase}
        content = filled(RecordDict, {**records, "step": filled(ConfigRecord, place), "experiment": self.wire})
        return Message(
            content, dst_node_id=self.nodes[client_id], message_type=message_type, ttl=self.experiment.deadline
        )

    def _arrays(self, state: Mapping[str, torch.Tensor]) -> ArrayRecord:
        """Give the same record object for the same tensors, so that a grid stores a round's arrays once."""
        held = self._encoded.get(id(state))
        if held is None or held[0] is not state:
            held = (dict_of(state), array_record(state, ArrayRecord, Array))
            self._encoded = {**dict(list(self._encoded.items())[-8:]), id(state): held}
        return held[1]

    def _without_kept(self, state: State) -> State:
        if self._stripped is None or self._stripped[0] is not state:
            keeps = self.parts.personalization.keeps
            self._stripped = (state, {name: t for name, t in state.items() if not keeps(name)})
        return self._stripped[1]

    def _client_of(self, message: Message) -> int:
        return self.clients.get(message.metadata.src_node_id, -1)

    def _first_of_each(self, replies: Iterable[Message], asked: Container[int]) -> Iterator[tuple[int, Message]]:
        """Give the first reply of each client that was asked; what else arrives is nobody's."""
        seen: set[int] = set()
        for reply in replies:
            client_id = self._client_of(reply)
            if client_id in asked and client_id not in seen:
                seen.add(client_id)
                yield client_id, reply

    def _accept(self, replies: Iterable[Message]) -> list[Update]:
        updates: dict[int, Update] = {}
        check = self.parts.calibration.check
        for client_id, reply in self._first_of_each(replies, self._templates):
            try:
                updates[client_id] = guards.accept(reply, client_id, self._templates[client_id], check)
            except guards.Refused as error:
                self.current.failed[client_id] = str(error)
                continue
            self._note(client_id, reply, updates[client_id])
        for client_id in self._templates:
            if client_id not in updates:
                self.current.failed.setdefault(client_id, "no answer within the deadline")
                # It may have lost what it kept: next time it is sent everything.
                self.holders.discard(client_id)
                self._unswept.add(client_id)
        if self._phase == "train":
            self._check_enough(updates)
        return [updates[client_id] for client_id in sorted(updates)]

    def _note(self, client_id: int, reply: Message, update: Update) -> None:
        self.current.traffic.up += sum(t.nbytes for t in (*update.state.values(), *update.statistics.values()))
        if self.keeps_parts:
            self.holders.add(client_id)
        client = reply.content.get("client")
        has_memory = isinstance(client, ConfigRecord) and bool(client.get("memory", 0))
        (self.with_memory.add if has_memory else self.with_memory.discard)(client_id)
        self._personal.collect(client_id, reply)

    def _check_enough(self, updates: Mapping[int, Update]) -> None:
        cohort = len(self.current.cohort)
        share = self.experiment.min_answers
        needed = max(1, round(share * cohort)) if share else 0
        if len(updates) < needed:
            reasons = "\n".join(f"client {k}: {self.current.failed[k]}" for k in sorted(self.current.failed))
            raise RoundFailed(
                f"round {self.current.number}: {len(updates)} of {cohort} clients answered well, "
                f"{needed} are needed (min_answers={self.experiment.min_answers:g})\n{reasons}"
            )


def dict_of(state: Mapping[str, torch.Tensor]) -> State:
    """Give the mapping itself as a dict, to hold on to its identity."""
    assert isinstance(state, dict)
    return state
