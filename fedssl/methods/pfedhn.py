"""pFedHN: a hyper-network at the server generates every client's network (Shamsian et al., ICML 2021, algorithm 1).

Batch-norm statistics cannot be generated: clients share their mean.
Paper: one client a step; here a cohort, whose gradients of the hyper-network are averaged (`vjp`). The generated
networks begin near one common network (`hn_init`), as there are hundreds of visits here and not thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from fedssl.config import ConfigError, option
from fedssl.data.batches import batches
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Average, Memory, Payload, ServerState, State, Step, Update
from fedssl.losses.supervised import cross_entropy
from fedssl.methods.base import Method, register
from fedssl.personalization.base import Personal, PersonalizationHook
from fedssl.rng import Rng
from fedssl.training.hypernetwork import first_state, fitted, network_of, stepped
from fedssl.training.sgd import SGD
from fedssl.training.steps import snapshot

if TYPE_CHECKING:
    from fedssl.models.networks.hyper_optimizer import HyperOptimizer

GENERATED = "generated"
"""In `extra`: bool, which of the sorted names of `ServerState.model` the hyper-network generates."""
VISITS = "visits"
"""In `extra`: int64 (clients,), how often a newcomer's embedding was fitted in this sweep."""
DECODER = "decoder."


@dataclass
class Generated(Payload):
    """The client's generated tensors and the shared ones; `visit` is -1, or a newcomer's number of fits so far."""

    visit: int = -1


@register("pfedhn")
@dataclass
class PFedHN(Method):
    """Clients take SGD steps on their labels; what they changed is the hyper-network's gradient."""

    lr: float = option(5e-3, "learning rate of the local SGD", above=0)
    momentum: float = option(0.9, "momentum of the local SGD, fresh each round", low=0, below=1)
    weight_decay: float = option(5e-5, "L2 penalty of the local SGD", low=0)
    clip: float = option(50.0, "largest norm of a local gradient", above=0)
    steps: int = option(50, "local steps a round", low=1)
    batch_size: int = option(64, "labelled samples a step", low=2)
    views: str = option("plain", "samples as they are, or weakly augmented", choices=("plain", "weak"))
    hidden: int = option(100, "units of the hyper-network's hidden layers (H)", low=1)
    layers: int = option(3, "hidden layers after the first (n)", low=0)
    hn_init: str = option(
        "centred", "generated networks begin near a common one, or with torch's default", choices=("centred", "default")
    )
    vjp: str = option("mean", "how the cohort's gradients of the hyper-network join", choices=("mean", "sum"))
    server_optimizer: str = option("sgd", "optimizer of the hyper-network", choices=("sgd", "adam"))
    server_lr: float = option(1e-2, "learning rate of the hyper-network and the embeddings", above=0)
    server_momentum: float = option(0.9, "momentum of the hyper-network's SGD", low=0, below=1)
    server_weight_decay: float = option(1e-3, "L2 penalty of the hyper-network", low=0)
    server_clip: float = option(50.0, "largest joint norm of the server's gradient", above=0)
    score: str = option(
        "generated", "a client's own model: as generated, or after its local steps", choices=("generated", "trained")
    )
    newcomers: int = option(0, "last clients that join after training, by an embedding alone", low=0)
    join_visits: int = option(20, "visits that fit a newcomer's embedding", low=1)
    join_share: float = option(
        0.5, "step of a newcomer's embedding, as a share of the best one along its gradient", above=0, high=1
    )

    tasks: ClassVar[tuple[str, ...]] = ("classification", "sensing")
    # The hyper-network makes whole models, so that a client can keep no part of one.
    personalizations: ClassVar[tuple[str, ...]] = ("finetune", "none")
    payload_type: ClassVar[type[Payload]] = Generated
    global_model: ClassVar[bool] = False
    defaults: ClassVar[tuple[str, ...]] = (
        "data=imu_synthetic",
        "model=mlp",
        "partition=natural",
        "labels=client_rate",
        "labels.rate=1.0",
        "validation=0",
        "participation=0.5",
        "rounds=100",
    )

    def evaluation_visits(self) -> int:
        """Give the visits of newcomers."""
        return self.join_visits if self.newcomers else 0

    def num_training_clients(self, num_clients: int) -> int:
        """Give the clients that are no newcomers. Raises ConfigError if none is left."""
        if self.newcomers >= num_clients:
            raise ConfigError("method.newcomers", self.newcomers, f"less than clients={num_clients}")
        return num_clients - self.newcomers

    def check(self, model: torch.nn.Module, data: ClientData | None, num_clients: int) -> None:
        """Check that not all clients are newcomers."""
        del model, data
        self.num_training_clients(num_clients)

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Give a fresh hyper-network, with the model's tensors as names, shapes and centre. A decoder is left out."""
        from fedssl.models.networks.hypernetwork import HyperNetwork, initialise

        del data
        known = self.num_training_clients(num_clients)
        state = {name: t.clone() for name, t in model.state_dict().items() if not name.startswith(DECODER)}
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        start = {name: state[name] for name in sorted(state) if name in trained}
        network = HyperNetwork(num_clients, {name: t.shape for name, t in start.items()}, self.hidden, self.layers)
        initialise(network, rng.torch("hypernetwork"), self.hn_init, start)
        extra = first_state(network, self.optimizer(), known)
        extra[GENERATED] = torch.tensor([name in trained for name in sorted(state)])
        extra[VISITS] = torch.zeros(num_clients, dtype=torch.int64)
        return ServerState(state, extra)

    def downlink(self, server: ServerState, client_id: int, step: Step) -> Payload:
        """Give the client's network: generated tensors and shared statistics (algorithm 1)."""
        del step
        network = network_of(server.extra, start_of(server))
        made = network.rows_to_states(network.generate(torch.tensor([client_id])))[0]
        visits = server.extra[VISITS]
        is_newcomer = client_id >= self.num_training_clients(len(visits))
        return Generated({**server.model, **made}, int(visits[client_id]) if is_newcomer else -1)

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Take the local steps (algorithm 1); without labels, give back what was sent.

        After training only newcomers do anything.
        """
        assert isinstance(payload, Generated)
        is_idle = step.phase == "evaluate" and payload.visit < 0
        if is_idle or not len(data.labelled):
            return Update(data.client_id, 0, payload.state), memory
        loss = self._train(model, payload.state, data, step.rng, max(0, payload.visit))
        sent = {name: tensor for name, tensor in snapshot(model).items() if name in payload.state}
        return Update(data.client_id, len(data.labelled), sent, metrics={"loss": (loss, self.steps)}), memory

    def _train(self, model: torch.nn.Module, state: State, data: ClientData, rng: Rng, visit: int) -> float:
        """Train in place from `state`; give the sum of the losses."""
        model.load_state_dict(state, strict=False)
        model.train()
        trained = [parameter for name, parameter in model.named_parameters() if name in state]
        optimizer = SGD(trained, self.lr, self.momentum, self.weight_decay)
        parts = list(batches(data.labelled, self.batch_size, self.steps, rng.numpy("order", visit)))
        is_plain, total = self.views == "plain", 0.0
        views = map(data.plain, parts) if is_plain else data.weak_batches(parts, rng.key("weak", visit))
        for index, x in zip(parts, views, strict=True):
            loss = cross_entropy(model(x).logits, data.labels(index))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, self.clip)
            optimizer.step()
            total += loss.item()
        return total

    def aggregate(self, server: ServerState, updates: Sequence[Update], step: Step, average: Average) -> ServerState:
        """Take one step of the hyper-network by what the clients changed (algorithm 1).

        The clients' average (`aggregation`) of trained tensors stays in `model`, where its statistics are shared.
        """
        updates = [update for update in updates if update.num_examples]
        if not updates:
            return server
        start = start_of(server)
        rows = {
            update.client_id: torch.cat([update.state[name].float().cpu().reshape(-1) for name in sorted(start)])
            for update in updates
        }
        if step.phase == "evaluate":
            return self._join(server, rows)
        known = self.num_training_clients(len(server.extra[VISITS]))
        made, facts = stepped(server.extra, start, self.optimizer(), rows, known)
        return replace(
            server,
            model={**server.model, **average(updates)},
            extra={**server.extra, **made},
            metrics={**server.metrics, **{f"hypernetwork_{name}": value for name, value in facts.items()}},
        )

    def optimizer(self) -> HyperOptimizer:
        """Give the server's optimizer."""
        from fedssl.models.networks.hyper_optimizer import HyperOptimizer

        return HyperOptimizer(
            how=self.vjp,
            clip=self.server_clip,
            lr=self.server_lr,
            weight_decay=self.server_weight_decay,
            optimizer=self.server_optimizer,
            momentum=self.server_momentum,
        )

    def _join(self, server: ServerState, rows: dict[int, torch.Tensor]) -> ServerState:
        """Fit the newcomers' embeddings, all else frozen."""
        visits = server.extra[VISITS].clone()
        visits[sorted(rows)] += 1
        made = fitted(server.extra, start_of(server), rows, self.join_share)
        return replace(server, extra={**server.extra, **made, VISITS: visits})

    def personalize(
        self,
        model: torch.nn.Module,
        payload: Payload,
        memory: Memory,
        data: ClientData,
        step: Step,
        hook: PersonalizationHook,
    ) -> Personal | None:
        """Give what the hook makes of the client's generated network, or of that after its local steps (`score`)."""
        assert isinstance(payload, Generated)
        if self.score == "trained" and len(data.labelled):
            with torch.enable_grad():
                self._train(model, payload.state, data, step.rng, max(0, payload.visit))
        else:
            model.load_state_dict(payload.state, strict=False)
        return hook.personalize(model, memory, data, step.rng)


def start_of(server: ServerState) -> State:
    """Give the generated tensors of `ServerState.model`, whose names and shapes the hyper-network's rows have."""
    is_generated = server.extra[GENERATED].tolist()
    return {name: server.model[name] for name, made in zip(sorted(server.model), is_generated, strict=True) if made}
