"""SemiPFL: personalized semi-supervised federated learning (Tashakori et al., IEEE IoT Journal 2023, figure 2).

The server's hyper-network generates an autoencoder for each user, who trains it on unlabelled windows. What it changed
is the hyper-network's gradient. On the server's own labelled windows that the trained autoencoder gives back well, one
base classifier a domain learns on the user's codes; the user mixes these with its few labels, or none.
Paper: its text could not be read; the figure, the abstract and the authors' code are followed. Softmax weights, mixed
probabilities, scaled windows (a decoder that ends in tanh cannot give back z-scores), lazy embeddings and the hardware
scenarios are this project's. The authors' code has one domain, fine-tunes one head that all users share, and filters
by batch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from fedssl.config import ConfigError, Experiment, option
from fedssl.data.views.client_data import ClientData
from fedssl.devices import Devices
from fedssl.diagnostics.reconstructions import principal_map, reconstructions
from fedssl.federation import Average, Memory, Payload, ServerState, State, Step, Update
from fedssl.losses.reconstruction import usable
from fedssl.methods.base import Method, register
from fedssl.models.autoencoder import PARTS, encode, load_autoencoder
from fedssl.personalization.base import Personal, PersonalizationHook
from fedssl.personalization.mixture import MixtureOfHeads
from fedssl.rng import Rng
from fedssl.training.autoencoder import train_autoencoder
from fedssl.training.base_classifiers import SIZES, BaseModels, filter_facts, kept_shares
from fedssl.training.hypernetwork import TABLE, first_state, fitted, network_of, over, stepped, under

BASE, LAST, LATE = "base.", "last.", "late."
"""Parts of `ServerState.extra` by user: this round's base models, those before, and an answer that comes late."""
SWEEPS = "sweeps"
"""In `extra` during an evaluation: how many sweeps are over."""
TRAINED, OWN, HEADS = "trained.", "own.", "heads."
"""Parts of a client's memory: its autoencoder until base models come; the one that the base models fit; these."""
EXAMPLES_PER_CLIENT = 2
"""Test windows of each client in the report."""


@dataclass
class Visit(Payload):
    """First exchange: the user's autoencoder, empty if this is no visit. Second: base models, empty without any.

    `epochs` is what the device has time for; one that `drops` never answers.
    """

    epochs: int = 0
    drops: bool = False


@register("semipfl")
@dataclass
class SemiPFL(Devices, Method):
    """Generates an autoencoder and base classifiers for each user; the user mixes the classifiers."""

    epochs: int = option(5, "epochs of a user's autoencoder a visit (E_a)", low=1)
    lr: float = option(1e-3, "learning rate of a user's autoencoder (Adam)", above=0)
    batch_size: int = option(128, "windows a step, at the users and at the server", low=2)
    hidden: int = option(32, "units of the hyper-network's hidden layers (H); authors' code: 100", low=1)
    layers: int = option(1, "hidden layers after the first (n); authors' code: 10", low=0)
    hn_init: str = option(
        "centred", "autoencoders begin near a common one, or with torch's default", choices=("centred", "default")
    )
    vjp: str = option("mean", "how the cohort's gradients of the hyper-network join", choices=("mean", "sum"))
    server_lr: float = option(1e-3, "learning rate of hyper-network and embeddings (Adam)", above=0)
    clip: float = option(50.0, "largest joint norm of the hyper-network's gradient; 0 = any", low=0)
    domains: int = option(
        3, "labelled sets of the server (M): its subjects in order, cut into so many; 0 = one a subject", low=0
    )
    domain_of: list[int] = option([], "domain of each of the server's subjects, instead of `domains`", low=0)
    filter: str = option(
        "sample",
        "what base models learn from: windows with an error <= tau; `batch`: batches with a mean < tau; `none`: all",
        choices=("sample", "batch", "none"),
    )
    tau: float = option(0.05, "largest reconstruction error of a similar window, in scaled units", low=0)
    base_epochs: int = option(5, "epochs of a base model (E_b)", low=1)
    base_lr: float = option(1e-3, "learning rate of a base model (Adam)", above=0)
    base_init: str = option(
        "fresh", "base models begin anew, or as the user's last of that domain", choices=("fresh", "warm")
    )
    base_when: str = option(
        "visit",
        "users get base models at each `visit`, or, as fresh ones change nothing else, only before they are `scored`",
        choices=("visit", "scored"),
    )
    eval_mode: str = option(
        "sweep", "models scored: after one more visit of all users, or as last visited", choices=("sweep", "last_visit")
    )
    newcomers: int = option(0, "last clients that join after training", low=0)
    new_user: str = option(
        "mean_embedding",
        "a newcomer's embedding: the mean of all others, or fitted from there with all else frozen",
        choices=("mean_embedding", "fit_embedding"),
    )
    join_visits: int = option(5, "visits that fit a newcomer's embedding", low=1)
    join_share: float = option(
        0.5, "step of a newcomer's embedding, as a share of the best one along its gradient", above=0, high=1
    )

    tasks: ClassVar[tuple[str, ...]] = ("sensing",)
    exchanges: ClassVar[tuple[str, ...]] = ("train", "mixture")
    payload_type: ClassVar[type[Payload]] = Visit
    personalization: ClassVar[str] = "mixture"
    personalizations: ClassVar[tuple[str, ...]] = ("mixture",)
    takes_average: ClassVar[bool] = False
    global_model: ClassVar[bool] = False
    defaults: ClassVar[tuple[str, ...]] = (
        "data=imu_synthetic",
        "model=autoencoder",
        # As in the authors' code; a code of 16 numbers is too small for 18 activities and for made-up ones.
        "model.sizes=[256,128,64]",
        "partition=natural",
        "labels=client_rate",
        "labels.rate=0.1",
        # Its own hook by name, so that `personalization.OPTION=` can be given.
        "personalization=mixture",
        "validation=0",
        # Twenty visits a user.
        "participation=0.5",
        "rounds=40",
    )

    def evaluation_visits(self) -> int:
        """Give the visits that fit newcomers' embeddings, and one more from which base models stay."""
        fits = self.join_visits if self.newcomers and self.new_user == "fit_embedding" else 0
        return fits + int(self.eval_mode == "sweep" or self.newcomers > 0)

    def num_training_clients(self, num_clients: int) -> int:
        """Give the clients that are no newcomers. Raises ConfigError if none is left."""
        if self.newcomers >= num_clients:
            raise ConfigError("method.newcomers", self.newcomers, f"less than clients={num_clients}")
        return num_clients - self.newcomers

    def check(self, model: torch.nn.Module, data: ClientData | None, num_clients: int) -> None:
        """Check for an autoencoder, windows of the server's own to learn from, and options that go together."""
        if not hasattr(model, "decoder"):
            raise ConfigError("model", type(model).__name__, "autoencoder with method=semipfl")
        if data is None or len(data.labelled) < 2:
            allowed = "one whose server has labelled windows of its own (data.server_subjects above 0)"
            raise ConfigError("data", "no windows at the server" if data is None else data.dataset.name, allowed)
        domain, y = self.domains_of(data), data.labels(data.labelled)
        if not any(usable(y[domain == m]) for m in torch.unique(domain)):
            raise ConfigError("data", data.dataset.name, "one with 2 windows of 2 classes in a domain of the server")
        self.num_training_clients(num_clients)
        if self.base_when == "scored":
            if self.eval_mode == "last_visit":
                raise ConfigError("method.eval_mode", self.eval_mode, "sweep with method.base_when=scored")
            if self.base_init == "warm":
                raise ConfigError("method.base_init", self.base_init, "fresh with method.base_when=scored")

    def warnings(self, experiment: Experiment, data: ClientData | None) -> list[str]:
        """Tell of weights over one domain, which are 1 whatever they learn."""
        if data is None or self.domains_of(data).any() or experiment.personalization.get("aggregate") != "weights":
            return []
        return ["the server has one domain, so that weights have nothing to learn: personalization.aggregate=finetune"]

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Give a fresh hyper-network; `ServerState.model` is the autoencoder that it is centred on."""
        from fedssl.models.networks.hyper_optimizer import HyperOptimizer
        from fedssl.models.networks.hypernetwork import HyperNetwork, initialise

        del data
        known = self.num_training_clients(num_clients)
        start = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(PARTS)}
        network = HyperNetwork(num_clients, {name: t.shape for name, t in start.items()}, self.hidden, self.layers)
        initialise(network, rng.torch("hypernetwork"), self.hn_init, start)
        network.to(next(iter(start.values())).device)
        return ServerState(start, first_state(network, HyperOptimizer(), known))

    def domains_of(self, data: ClientData) -> torch.Tensor:
        """Give the domain 0..M-1 of each of the server's windows. Raises ConfigError if the subjects do not suffice."""
        subjects, place = np.unique(data.dataset.train.group[data.labelled], return_inverse=True)
        domain = np.asarray(self.domain_of, np.int64)
        if not self.domain_of:
            count = self.domains or len(subjects)
            if count > len(subjects):
                allowed = f"at most {len(subjects)}, the number of the server's subjects"
                raise ConfigError("method.domains", self.domains, allowed)
            sizes = [len(part) for part in np.array_split(subjects, count)]
            domain = np.repeat(np.arange(count), sizes)
        elif len(domain) != len(subjects) or len(np.unique(domain)) != domain.max() + 1:
            allowed = f"one domain 0, 1, ... for each of the server's {len(subjects)} subjects, none left out"
            raise ConfigError("method.domain_of", self.domain_of, allowed)
        return torch.from_numpy(domain[place]).to(data.device)

    def downlink(self, server: ServerState, client_id: int, step: Step) -> Payload:
        """Give the user's generated autoencoder, phi = h(alpha; theta); in the second exchange its base models."""
        if step.exchange == "mixture":
            return Visit(under(f"{BASE}{client_id}.", server.extra))
        if not self._visits(server, client_id, step):
            return Visit({})
        network = network_of(server.extra, server.model)
        row = network.generate(torch.tensor([client_id], device=network.output.bias.device))
        return Visit(
            network.rows_to_states(row)[0], self.epochs_of(client_id, self.epochs), self._drops(client_id, step)
        )

    def uplink(self, server: ServerState, payload: Payload, step: Step) -> State:
        """Give the autoencoder; nothing in the second exchange or from a device that drops out."""
        del server
        assert isinstance(payload, Visit)
        return {} if step.exchange == "mixture" or payload.drops else payload.state

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Train the autoencoder on all windows, or take the base models, frozen.

        The mixture's weights are learned where it is scored, in `personalize`: the server never sees them.
        """
        assert isinstance(payload, Visit)
        rest = without(TRAINED, memory)
        if step.exchange == "mixture":
            return Update(data.client_id, 0, {}), take(payload.state, memory, rest)
        if payload.drops or not payload.state:
            return Update(data.client_id, 0, {}), rest
        pool = np.sort(np.concatenate([data.labelled, data.unlabelled]))
        state, metrics = payload.state, {}
        if len(pool):
            load_autoencoder(model, payload.state)
            x = data.plain(pool)
            metrics = train_autoencoder(model, x, payload.epochs, self.batch_size, self.lr, step.rng)
            state = {name: t.detach().clone() for name, t in model.state_dict().items() if name in payload.state}
        return Update(data.client_id, len(pool), state, metrics=metrics), {**rest, **over(TRAINED, state)}

    def aggregate(self, server: ServerState, updates: Sequence[Update], step: Step, average: Average) -> ServerState:
        """Take one step of the hyper-network towards what came back: cotangent phi - phi', as pFedHN's authors."""
        del average
        if step.exchange == "mixture":
            return self._after_visit(server, step)
        network = network_of(server.extra, server.model)
        rows = {update.client_id: network.state_to_row(update.state) for update in updates if update.num_examples}
        known = self.num_training_clients(network.embedding.num_embeddings)
        if step.phase == "evaluate":
            rows = {user: row for user, row in rows.items() if user >= known}
            if self.new_user != "fit_embedding" or not rows:
                return server
            extra = fitted(server.extra, server.model, rows, self.join_share)
            return replace(server, extra={**server.extra, **extra})
        here, late = self._arrivals(server, rows, step)
        extra = without(LATE, server.extra) | late
        metrics = {"applied": float(len(here)), "late": float(len(under(LATE, extra)) // 2)}
        if here:
            from fedssl.models.networks.hyper_optimizer import HyperOptimizer

            optimizer = HyperOptimizer(how=self.vjp, clip=self.clip, lr=self.server_lr)
            made, facts = stepped(server.extra, server.model, optimizer, here, known)
            extra, metrics = {**extra, **made}, {**metrics, **facts}
        return replace(server, extra=extra, metrics={**server.metrics, **metrics})

    def _arrivals(
        self, server: ServerState, rows: dict[int, torch.Tensor], step: Step
    ) -> tuple[dict[int, torch.Tensor], State]:
        """Give the rows phi' that are here, by user, and what waits for a later round; the newest of a user counts."""
        late = under(LATE, server.extra)
        due = [int(name.split(".")[0]) for name in late if name.endswith(".due") and int(late[name]) <= step.round_]
        here = {user: late.pop(f"{user}.row") for user in due}
        for user in due:
            del late[f"{user}.due"]
        if self.stale == "drop":
            here = {}
        for user, row in rows.items():
            if delay := self._delay(user, step):
                late |= {f"{user}.row": row, f"{user}.due": torch.tensor(step.round_ + delay)}
            else:
                here[user] = row
        return here, over(LATE, late)

    def _after_visit(self, server: ServerState, step: Step) -> ServerState:
        """Let go of base models that were sent, or keep them to begin with next time."""
        extra = without(BASE, server.extra)
        if self.base_init == "warm":
            extra |= over(LAST, under(BASE, server.extra))
        if step.phase == "evaluate":
            extra[SWEEPS] = torch.tensor(sweeps_done(server) + 1)
        return replace(server, extra=extra)

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Train a base model for each user and domain, on the codes of the server's similar windows."""
        here = [update for update in updates if update.state and not self._delay(update.client_id, step)]
        if step.exchange != "train" or (step.phase == "evaluate" and not self._is_last_sweep(server)):
            return server
        assert data is not None
        extra = without(BASE, server.extra)
        users = [update.client_id for update in here]
        last = {user: under(f"{LAST}{user}.", extra) for user in users}
        made: dict[int, State] = {}
        if step.phase == "evaluate" or self.base_when == "visit":
            maker = BaseModels(self.filter, self.tau, self.base_epochs, self.base_lr, self.batch_size)
            trained = {update.client_id: update.state for update in here}
            made = maker.train(model, data, self.domains_of(data), trained, last, step.rng)
        for user, state in made.items():
            extra |= over(f"{BASE}{user}.", state)
        metrics = kept_shares(list(made.values()))
        metrics["simulated_seconds"] = max((self._seconds(update, made) for update in here), default=0.0)
        return replace(server, extra=extra, metrics={**server.metrics, **metrics})

    def _seconds(self, update: Update, made: Mapping[int, State]) -> float:
        """Give the simulated time of a visit: autoencoder down and up, base models down, and training."""
        tensors = [*update.state.values(), *update.state.values(), *made.get(update.client_id, {}).values()]
        steps, count = update.metrics.get("steps", (0.0, 1.0))
        return self.seconds(update.client_id, sum(tensor.nbytes for tensor in tensors), steps / count)

    def personalize(
        self,
        model: torch.nn.Module,
        payload: Payload,
        memory: Memory,
        data: ClientData,
        step: Step,
        hook: PersonalizationHook,
    ) -> Personal | None:
        """Give the mixture of the user's base models on the encoder that they fit; None before a visit."""
        del payload
        assert isinstance(hook, MixtureOfHeads)
        sent = under(HEADS, memory)
        if not sent:
            return None
        load_autoencoder(model, under(OWN, memory))
        sizes = sent[SIZES].tolist()
        heads: dict[str, torch.nn.Module] = {}
        for m, size in enumerate(sizes):
            if size:
                heads[str(m)] = copy.deepcopy(model.get_submodule("head"))
                heads[str(m)].load_state_dict(under(f"{m}.", sent))
        made = hook.combine(model, heads, {name: sizes[int(name)] for name in heads}, data, step.rng)
        facts = {f"weight_{m}": 0.0 for m in range(len(sizes))} | made.facts | filter_facts(sent)
        x, _ = data.test()
        if len(x):
            facts["error"] = float(encode(model, x)[1].mean())
        return Personal(made.model, facts)

    def diagnostics(self, server: ServerState, model: torch.nn.Module, data: Sequence[ClientData]) -> dict[str, Any]:
        """Give the map of embeddings by two principal axes, and windows as each user's autoencoder sees them."""
        network = network_of(server.extra, server.model)
        places = principal_map(network.embedding.weight.detach())
        users, windows = [], []
        for one in data:
            x, y = places[one.client_id].tolist()
            users.append({"client": one.client_id, "subject": subject_of(one), "x": x, "y": y})
            row = network.generate(torch.tensor([one.client_id], device=places.device))
            windows += reconstructions(model, network.rows_to_states(row)[0], one, EXAMPLES_PER_CLIENT)
        return {"embeddings": users, "reconstructions": windows}

    def _visits(self, server: ServerState, client_id: int, step: Step) -> bool:
        """Say whether this is a visit: always in training, in sweeps while there is something to do for the user."""
        if step.phase == "train":
            return True
        known = self.num_training_clients(len(server.extra[TABLE]))
        return client_id >= known or (self.eval_mode == "sweep" and self._is_last_sweep(server))

    def _is_last_sweep(self, server: ServerState) -> bool:
        return sweeps_done(server) >= self.evaluation_visits() - 1

    def _drops(self, client_id: int, step: Step) -> bool:
        return step.phase == "train" and self.drops(step.rng.at(client=client_id))

    def _delay(self, client_id: int, step: Step) -> int:
        return self.delay(step.rng.at(client=client_id)) if step.phase == "train" else 0


def without(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is not named `prefix...`."""
    return {name: value for name, value in tensors.items() if not name.startswith(prefix)}


def sweeps_done(server: ServerState) -> int:
    """Give the sweeps of this evaluation that are over."""
    return int(server.extra[SWEEPS]) if SWEEPS in server.extra else 0


def take(sent: State, memory: Memory, rest: Memory) -> Memory:
    """Give the memory with the base models `sent` and the autoencoder they fit; unchanged but for that without any."""
    if not sent:
        return rest
    kept = without(HEADS, without(OWN, rest))
    return {**kept, **over(OWN, under(TRAINED, memory)), **over(HEADS, sent)}


def subject_of(data: ClientData) -> int | str:
    """Give the natural group that all of the client's training samples share, "" without."""
    groups = np.unique(data.dataset.train.group[np.concatenate([data.labelled, data.unlabelled])])
    return int(groups[0]) if len(groups) == 1 and groups[0] >= 0 else ""
