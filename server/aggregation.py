"""The clients' average by any Flower strategy, wrapped and never rewritten."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower_strategies

from fedssl.aggregation import AGGREGATIONS
from fedssl.federation import State, Update
from fedssl.wire import array_record, filled, tensors_of

STATE_FIELDS = ("m_t", "v_t", "momentum_vector")


class Aggregator:
    """Averages trained float parameters through a Flower strategy and all buffers by a plain weighted mean.

    `parameters` names the tensors that the strategy may see: counters and batch-norm statistics confuse Krum and
    made FedAdam's variances negative.
    """

    def __init__(self, choice: Mapping[str, Any], parameters: frozenset[str]) -> None:
        options = dataclasses.asdict(AGGREGATIONS.create(choice))  # type: ignore[call-overload]
        self.parameters = parameters
        self.inner: Any
        with _quiet():
            # fraction_train=0: configure_train only notes the current arrays and sends nothing.
            self.inner = getattr(flower_strategies, choice["name"])(fraction_train=0.0, **options)

    def average(self, model: State, updates: Sequence[Update], round_: int) -> State:
        """Give the averaged tensors of the names in the updates; without any weight the model stays.

        `updates` are in the order of client ids, which fixes the order of the sums.
        """
        updates = [update for update in updates if update.num_examples > 0]
        if not updates:
            return {}
        # Sorted: FedAvgM knows its momentum, and Krum its coordinates, by position.
        names = sorted(updates[0].state)
        trained = [n for n in names if n in self.parameters and model[n].is_floating_point()]
        averaged = self._buffers(updates, [name for name in names if name not in set(trained)])
        if trained:
            averaged.update(self._parameters(model, updates, trained, round_))
        return {name: averaged[name].to(model[name].dtype).reshape(model[name].shape) for name in names}

    def _buffers(self, updates: Sequence[Update], names: Sequence[str]) -> State:
        total = sum(update.num_examples for update in updates)
        found: State = {}
        for name in names:
            tensors = [update.state[name] for update in updates]
            if not tensors[0].is_floating_point():
                found[name] = tensors[0].clone()
                continue
            mean = torch.zeros_like(tensors[0], dtype=torch.float64)
            for update, tensor in zip(updates, tensors, strict=True):
                mean += tensor.double() * (update.num_examples / total)
            found[name] = mean.to(tensors[0].dtype)
        return found

    def _parameters(self, model: State, updates: Sequence[Update], names: Sequence[str], round_: int) -> State:
        current = array_record({name: model[name] for name in names}, ArrayRecord, Array)
        if hasattr(self.inner, "current_arrays"):
            # FedAvgM keeps its own last arrays and would undo what the server trained since.
            self.inner.current_arrays = None
        for field in STATE_FIELDS:
            # A method that sends other tensors than before, as in a new phase, begins anew.
            if (kept := getattr(self.inner, field, None)) and len(kept) != len(names):
                setattr(self.inner, field, None)
        with _quiet():
            self.inner.configure_train(round_, current, ConfigRecord(), None)
            # Fresh messages each time: FedMedian and FedTrimmedAvg empty those that they are given.
            arrays, _ = self.inner.aggregate_train(round_, [_message(update, names) for update in updates])
        if arrays is None:
            raise RuntimeError(f"{type(self.inner).__name__} gave no average of {len(updates)} answers")
        return tensors_of(arrays)

    def state(self) -> State:
        """Give all arrays that the strategy carries from round to round, for the checkpoint."""
        found: State = {}
        for field in STATE_FIELDS:
            value = getattr(self.inner, field, None)
            items = enumerate(value) if isinstance(value, list) else (value or {}).items()
            for name, array in items:
                found[f"{field}/{name}"] = torch.tensor(np.asarray(array))
        return found

    def restore(self, state: State) -> None:
        """Put back what `state` gave."""
        for field in STATE_FIELDS:
            items = {k.split("/", 1)[1]: t.numpy() for k, t in state.items() if k.startswith(f"{field}/")}
            if items:
                as_list = field == "momentum_vector"
                value = [items[str(i)] for i in range(len(items))] if as_list else items
                setattr(self.inner, field, value)


def _message(update: Update, names: Sequence[str]) -> Message:
    arrays = array_record({name: update.state[name] for name in names}, ArrayRecord, Array)
    metrics = filled(MetricRecord, {"num-examples": update.num_examples})
    content = filled(RecordDict, {"arrays": arrays, "metrics": metrics})
    return Message(content, dst_node_id=update.client_id, message_type="train")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Flower from logging that sampling is off, which here is the point."""
    logger = logging.getLogger("flwr")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
