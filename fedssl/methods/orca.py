"""Federated ORCA: open-world semi-supervised learning by pairs, an adaptive margin and an entropy term.

Cao, Brbic, Leskovec, "Open-World Semi-Supervised Learning", ICLR 2022, with FedAvg (Fed-AO) or, by
`personalization=local_head`, FedRep (Fed-RO) of Zhang et al., ICML 2023.
Paper: the margin and the entropy term stand in ORCA's code and not in the text of FedoSSL; both are switches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.config import ConfigError, Experiment, option
from fedssl.data.batches import batches
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Payload, ServerState, State, Step, Update
from fedssl.losses.base import Counts
from fedssl.losses.pairwise import choose_partners, pairwise_loss
from fedssl.losses.supervised import cross_entropy
from fedssl.losses.uncertainty import entropy_term, margin_logits
from fedssl.methods.base import Method, register
from fedssl.models.feature_cache import Maps, cached_maps, plain_features
from fedssl.models.frozen import CutNetwork, is_top, trunk_layers
from fedssl.rng import Rng
from fedssl.training.sgd import SGD
from fedssl.training.steps import load, snapshot

_LAYERS = "trunk_layers"
_MOMENTUM = "momentum."
_MAX_SKIPPED = 0.1
_RATES = ((0.9, 0.01), (0.7, 0.1))


@dataclass
class Batch:
    """Rows of one step, labelled first; `maps` are the two views behind the frozen trunk."""

    index: NDArray[np.int64]
    num_labelled: int
    y: torch.Tensor
    maps: tuple[torch.Tensor, torch.Tensor]


@dataclass
class Rows:
    """What the model makes of a batch's two views, float32, and each row's partner in the second view."""

    features: tuple[torch.Tensor, torch.Tensor]
    logits: torch.Tensor
    probability: tuple[torch.Tensor, torch.Tensor]
    partner: torch.Tensor
    num_labelled: int


@register("orca")
@dataclass
class Orca(Method):
    """Trains the last stage and a cosine head on labelled samples, on pairs, and against collapse."""

    open_world: ClassVar[bool] = True
    scores_trained_model: ClassVar[bool] = True
    defaults: ClassVar[tuple[str, ...]] = (
        "data=fashion_small",
        "partition=open_world",
        "labels=client_rate",
        "labels.rate=0.5",
        "model=resnet",
        "model.head=cosine",
        "model.weights=auto",
        "model.pretrain_epochs=10",
        "rounds=20",
    )

    epochs: int = option(5, "local epochs a round (E)", low=1)
    batch_size: int = option(512, "samples a step, labelled and unlabelled in proportion (B)", low=2)
    lr: float = option(0.1, "learning rate", above=0)
    schedule: str = option(
        "steps", "`steps`: x0.1 at 70 % and again at 90 % of the rounds", choices=("steps", "constant")
    )
    momentum: float = option(0.9, "momentum of SGD", low=0, below=1)
    weight_decay: float = option(5e-4, "weight decay of SGD", low=0)
    optimizer_state: str = option("fresh", "momentum between a client's rounds", choices=("fresh", "keep"))
    epoch_over: str = option("labelled", "an epoch is one pass over these samples", choices=("labelled", "unlabelled"))
    pair_weight: float = option(1.0, "weight of the pairwise loss (alpha)", low=0)
    entropy_weight: float = option(1.0, "weight of the term that keeps the mean prediction spread out", low=0)
    margin: str = option("on", "uncertainty-adaptive margin of the supervised loss", choices=("on", "off"))
    average_by: str = option("size", "clients' weights in the average", choices=("size", "uniform"))
    train: str = option("last_stage", "what trains; a model without stages trains whole", choices=("last_stage", "all"))
    frozen_bn: str = option("eval", "batch norm of the frozen stages", choices=("eval", "train"))
    cache_views: int = option(
        0, "views of each sample computed once through the frozen stages and kept on disk; 0 = fresh ones", low=0
    )

    def __post_init__(self) -> None:
        if self.cache_views == 1:
            raise ConfigError("method.cache_views", 1, "0, or at least 2, since a step takes two views of a sample")
        if self.cache_views and (self.train == "all" or self.frozen_bn == "train"):
            raise ConfigError(
                "method.cache_views", self.cache_views, "0 unless train=last_stage and frozen_bn=eval: nothing is fixed"
            )

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Give the first state; it notes how many layers stay frozen."""
        server = super().init_server(model, data, rng, num_clients)
        return replace(server, extra={_LAYERS: torch.tensor(self.layers(model))})

    def uplink(self, server: ServerState, payload: Payload, step: Step) -> State:
        """Give the tensors that training changes."""
        del step
        layers = int(server.extra[_LAYERS])
        return {name: tensor for name, tensor in payload.state.items() if self.sends(name, layers)}

    def sends(self, name: str, layers: int) -> bool:
        """Say whether a client sends this tensor: what trains, and statistics of batch norm that moved."""
        return is_top(name, layers) or (self.frozen_bn == "train" and "running_" in name)

    def layers(self, model: torch.nn.Module) -> int:
        """Give the number of frozen leading modules."""
        return trunk_layers(model) if self.train == "last_stage" else 0

    def warnings(self, experiment: Experiment, data: ClientData | None) -> list[str]:
        """Tell of frozen stages that nobody has trained."""
        del data
        if self.train != "last_stage" or experiment.model.get("weights") != "":
            return []
        return ["model.weights is empty: the stages that stay frozen are random; `auto` pre-trains them"]

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Train E epochs (ORCA's loss and, in methods built on this, further terms)."""
        split = CutNetwork(model, self.layers(model))
        sent = [name for name in payload.state if self.sends(name, split.layers)]
        if not data.num_examples:
            return Update(data.client_id, 0, {name: payload.state[name] for name in sent}), memory
        load(model, payload.state)
        optimizer = self.optimizer(split, memory, step)
        metrics: Counts = {}
        run = LocalTraining(self, split, data, payload, step, self.maps(split, data, step), metrics)
        for epoch in range(self.epochs):
            run.epoch(optimizer, epoch)
        run.check()
        weight = data.num_examples if self.average_by == "size" else 1
        state = {name: tensor for name, tensor in snapshot(model).items() if name in set(sent)}
        return Update(data.client_id, weight, state, metrics=metrics), self.remember(optimizer, memory)

    def maps(self, split: CutNetwork, data: ClientData, step: Step) -> Maps | None:
        """Give the kept outputs of the frozen stages, if there are frozen stages and `cache_views` asks for them."""
        maps = None
        if self.cache_views and split.layers:
            rng = Rng(step.rng.seed)
            maps = cached_maps(split, data, [rng.key("kept views", view) for view in range(self.cache_views)])
        split.model.maps = maps  # type: ignore[assignment]
        return maps

    def optimizer(self, split: CutNetwork, memory: Memory, step: Step) -> SGD:
        """Give SGD at this round's rate, with the client's own momentum if that is kept."""
        done = (step.round_ - 1) / step.num_rounds
        factor = next((f for share, f in _RATES if done >= share), 1.0) if self.schedule == "steps" else 1.0
        made = SGD(split.parameters(), self.lr * factor, self.momentum, self.weight_decay)
        for i, parameter in enumerate(split.parameters()):
            if f"{_MOMENTUM}{i}" in memory:
                made.state[parameter]["momentum_buffer"] = memory[f"{_MOMENTUM}{i}"].clone().to(parameter.device)
        return made

    def remember(self, optimizer: SGD, memory: Memory) -> Memory:
        """Give the memory with the momentum, if that is kept."""
        if self.optimizer_state == "fresh":
            return memory
        parameters = optimizer.param_groups[0]["params"]
        buffers = {i: optimizer.state[p].get("momentum_buffer") for i, p in enumerate(parameters)}
        return {**memory, **{f"{_MOMENTUM}{i}": b.detach().cpu().clone() for i, b in buffers.items() if b is not None}}

    def context(self, run: LocalTraining, unlabelled: torch.Tensor, last: Any) -> Any:
        """Give what `extra_loss` needs for an epoch, from logits of all unlabelled samples and the last epoch's."""
        del run, unlabelled, last

    def extra_loss(self, rows: Rows, run: LocalTraining) -> tuple[torch.Tensor | None, Counts]:
        """Give further terms of the loss, None without any, and their values."""
        del rows, run
        return None, {}


class LocalTraining:
    """One client's training in one round."""

    def __init__(
        self,
        method: Orca,
        split: CutNetwork,
        data: ClientData,
        payload: Payload,
        step: Step,
        maps: Maps | None,
        metrics: Counts,
    ) -> None:
        self.method = method
        self.split = split
        self.data = data
        self.payload = payload
        self.step = step
        self.maps = maps
        self.metrics = metrics
        # Epochs are counted through the run, so that rounds x epochs at one client are one long training.
        self.first_epoch = (step.round_ - 1) * method.epochs
        self.rng = Rng(step.rng.seed, 0, data.client_id)
        self.context: Any = None
        self.skipped = 0
        self.steps = 0

    def epoch(self, optimizer: SGD, epoch: int) -> None:
        """Take one epoch's steps; one whose loss is not finite is skipped and counted."""
        method, number = self.method, self.first_epoch + epoch
        unlabelled = plain_features(self.split, self.data, self.data.unlabelled, self.maps).logits
        uncertainty = min(float(1 - unlabelled.softmax(1).amax(1).mean()), 0.5) if len(unlabelled) else 0.0
        self.add({"uncertainty": (uncertainty, 1.0)})
        if epoch == 0 and len(unlabelled):
            predicted = torch.bincount(unlabelled.argmax(1), minlength=self.data.num_classes).tolist()
            self.add({f"predicted_{label}": (float(n), float(len(unlabelled))) for label, n in enumerate(predicted)})
        self.context = method.context(self, unlabelled, self.context)
        self.split.train(trunk=method.frozen_bn == "train")
        generator = self.rng.torch("pairs", number)
        for batch in self.batches(number):
            kept = self.split.buffers()
            loss, counts = self.loss(batch, uncertainty, generator)
            self.steps += 1
            if not math.isfinite(loss.item()):
                self.skipped += 1
                self.split.restore(kept)
                continue
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            self.add({**counts, "loss": (loss.item(), 1.0)})

    def batches(self, number: int) -> Iterator[Batch]:
        """Give an epoch's batches: labelled and unlabelled samples in the client's own proportion."""
        data, size = self.data, min(self.method.batch_size, max(2, self.data.num_examples))
        num_lb, num_ulb = len(data.labelled), len(data.unlabelled)
        # Two at least, as `batches` gives, so that steps and rows agree.
        of_lb = max(2, size * num_lb // (num_lb + num_ulb)) if num_lb else 0
        of_ulb = max(2, size - of_lb) if num_ulb else 0
        over_lb = num_lb and (self.method.epoch_over == "labelled" or not num_ulb)
        # At least one batch, and no part of one beside full ones.
        steps = max(1, num_lb // of_lb if over_lb else num_ulb // of_ulb)
        order = self.rng.numpy("order", number)
        labelled = batches(data.labelled, of_lb, steps, order)
        unlabelled = batches(data.unlabelled, of_ulb, steps, order)
        key, views = self.rng.key("views", number), self.rng.numpy("kept views", number)
        for i, (index_lb, index_ulb) in enumerate(zip(labelled, unlabelled, strict=True)):
            index = np.concatenate([index_lb, index_ulb])
            yield Batch(index, len(index_lb), data.labels(index_lb), self.two_views(index, key + 2 * i, views))

    def two_views(
        self, index: NDArray[np.int64], key: int, views: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give two augmented views of each sample behind the trunk, fresh ones or two of those kept."""
        if self.maps is None:
            first, second = (self.split.trunk(self.data.weak(index, key + i)) for i in range(2))
            return first, second
        kept = self.method.cache_views
        one = views.integers(0, kept, len(index))
        other = (one + views.integers(1, max(2, kept), len(index))) % kept
        return self.maps(1 + one, index), self.maps(1 + other, index)

    def loss(self, batch: Batch, uncertainty: float, generator: torch.Generator) -> tuple[torch.Tensor, Counts]:
        """Give L_s + alpha L_u - entropy + what the method adds, and the value of each term."""
        method = self.method
        rows = self.forward(batch, generator)
        logits_lb = rows.logits[: batch.num_labelled]
        if method.margin == "on":
            logits_lb = margin_logits(logits_lb, batch.y, uncertainty)
        loss_lb = cross_entropy(logits_lb, batch.y)
        loss_pair = pairwise_loss(rows.probability[0], rows.probability[1][rows.partner])
        loss_entropy = entropy_term(rows.probability[0])
        loss = loss_lb + method.pair_weight * loss_pair + method.entropy_weight * loss_entropy
        terms = {"supervised": loss_lb, "pairwise": loss_pair, "entropy": loss_entropy}
        counts = {f"loss_{name}": (float(value.detach()), 1.0) for name, value in terms.items()}
        extra, more = method.extra_loss(rows, self)
        return (loss if extra is None else loss + extra), {**counts, **more}

    def forward(self, batch: Batch, generator: torch.Generator) -> Rows:
        """Give both views' outputs; each passes alone, as in the authors' code, so batch norm sees one view."""
        outputs = [self.split.top(maps) for maps in batch.maps]
        logits = [output.logits.float() for output in outputs]
        features = outputs[0].features.float(), outputs[1].features.float()
        partner = choose_partners(features[0].detach(), batch.y, generator)
        return Rows(features, logits[0], (logits[0].softmax(1), logits[1].softmax(1)), partner, batch.num_labelled)

    def add(self, counts: Counts) -> None:
        """Add (sum, count) pairs to the client's metrics."""
        for name, (value, weight) in counts.items():
            before = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (before[0] + value, before[1] + weight)

    def check(self) -> None:
        """Raise FloatingPointError if more than a tenth of the steps had no finite loss."""
        self.add({"skipped_steps": (float(self.skipped), float(self.steps))})
        if self.skipped > _MAX_SKIPPED * self.steps:
            raise FloatingPointError(f"{self.skipped} of {self.steps} steps had no finite loss")
