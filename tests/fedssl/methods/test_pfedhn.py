"""Tests of fedssl.methods.pfedhn: the server's step against autograd, newcomers, shared statistics."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import experiment, run

from fedssl.config import ConfigError
from fedssl.data.views.client_data import ClientData
from fedssl.federation import ServerState, State, Step, Update
from fedssl.methods.pfedhn import VISITS, Generated, PFedHN, start_of
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.personalization.none import NoPersonalization
from fedssl.rng import Rng
from fedssl.training import hypernetwork
from fedssl.training.hypernetwork import NETWORK, TABLE, under

MakeClient = Callable[..., ClientData]
NUM_CLIENTS = 5
EMBEDDING = "embedding.weight"


def network() -> torch.nn.Module:
    return build_model(MODELS.create({"name": "mlp", "hidden": 4, "layers": 1}), (8, 8, 1), 3, Rng(0).torch("start"))


def small(**options: Any) -> PFedHN:
    return PFedHN(**{"hidden": 6, "layers": 1, "steps": 3, "batch_size": 4, **options})


def begun(method: PFedHN, model: torch.nn.Module | None = None) -> ServerState:
    return method.init_server(model or network(), None, Rng(0), NUM_CLIENTS)


def step(phase: Any = "train") -> Step:
    return Step("train", 1, 3, phase, Rng(0, 1, 1))


def mean(updates: Sequence[Update]) -> State:
    total = sum(update.num_examples for update in updates)
    return {n: sum(u.state[n] * (u.num_examples / total) for u in updates) for n in updates[0].state}  # type: ignore[misc]


def updates_of(method: PFedHN, server: ServerState, shifts: dict[int, float], phase: Any = "train") -> list[Update]:
    """Answers whose every float is what was sent plus the client's shift."""
    sent = {k: method.downlink(server, k, step(phase)).state for k in shifts}
    return [
        Update(k, 10, {n: t + shift if t.is_floating_point() else t for n, t in sent[k].items()})
        for k, shift in shifts.items()
    ]


def by_autograd(server: ServerState, updates: list[Update]) -> dict[str, torch.Tensor]:
    """Gradients of the cohort's mean of |h(alpha) - trained|^2 / 2, an embedding's of its own user's alone."""
    hyper = hypernetwork.network_of(server.extra, start_of(server), copied=True)
    loss = torch.zeros(())
    for update in updates:
        trained = torch.cat([update.state[name].reshape(-1) for name in hyper.shapes])
        loss = loss + (hyper(torch.tensor([update.client_id]))[0] - trained).square().sum() / 2
    names, parameters = zip(*hyper.named_parameters(), strict=True)
    found = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    return {name: g if name == EMBEDDING else g / len(updates) for name, g in found.items()}


def test_the_servers_step_is_the_gradient_of_the_distance_to_what_came_back():
    method = small(server_lr=0.1, server_weight_decay=0.0, server_clip=1e9)
    server = begun(method)
    updates = updates_of(method, server, {0: 0.3, 3: -0.1})
    after = method.aggregate(server, updates, step(), mean)
    old, new = under(NETWORK, server.extra), under(NETWORK, after.extra)
    for name, gradient in by_autograd(server, updates).items():
        torch.testing.assert_close(new[name], old[name] - 0.1 * gradient, rtol=1e-4, atol=1e-5)
    assert after.metrics["hypernetwork_delta"] > 0


def test_absent_clients_keep_their_embedding_and_the_state_given_stays():
    method = small()
    server = begun(method)
    before = copy.deepcopy(server)
    first = method.aggregate(server, updates_of(method, server, {1: 0.2}), step(), mean)
    second = method.aggregate(first, updates_of(method, first, {2: 0.2}), step(), mean)
    for name, tensor in before.extra.items():
        assert torch.equal(server.extra[name], tensor), name
    tables = [under(NETWORK, state.extra)[EMBEDDING] for state in (server, first, second)]
    assert [k for k in range(NUM_CLIENTS) if not torch.equal(tables[0][k], tables[1][k])] == [1]
    # Client 1 has momentum now, and still stays.
    assert [k for k in range(NUM_CLIENTS) if not torch.equal(tables[1][k], tables[2][k])] == [2]


def test_visits_bring_the_generated_network_to_the_trained_one():
    method = small(server_lr=0.05, server_weight_decay=0.0)
    server = begun(method)
    (goal,) = updates_of(method, server, {2: 0.1})
    distances = []
    for _ in range(10):
        made = method.downlink(server, 2, step()).state
        distances.append(sum(float((made[n] - goal.state[n]).square().sum()) for n in made))
        server = method.aggregate(server, [goal], step(), mean)
    assert distances[-1] < 0.5 * distances[0]


def test_without_any_label_nothing_changes(client: MakeClient):
    method, model = small(), network()
    server = begun(method)
    payload = method.downlink(server, 1, step())
    update, memory = method.train_client(model, payload, {}, client(0, 12), step())
    assert (update.num_examples, update.state, memory) == (0, payload.state, {})
    assert method.aggregate(server, [update], step(), mean) is server


def test_centred_begins_with_the_models_own_weights():
    method, model = small(), network()
    server = begun(method, model)
    server.extra[NETWORK + "output.weight"].zero_()
    for client_id in range(NUM_CLIENTS):
        made = method.downlink(server, client_id, step()).state
        assert list(made) == list(model.state_dict())
        assert all(torch.equal(made[name], tensor) for name, tensor in model.state_dict().items())


def test_a_local_step_is_clipped(client: MakeClient):
    def moved(clip: float) -> torch.Tensor:
        method = small(steps=1, lr=0.1, momentum=0.0, weight_decay=0.0, clip=clip, batch_size=6)
        payload = method.downlink(begun(method), 1, step())
        update, _ = method.train_client(network(), payload, {}, client(6, 0), step())
        return torch.cat([(update.state[n] - payload.state[n]).reshape(-1) for n in payload.state])

    free = moved(1e9)
    norm = float(free.norm()) / 0.1
    torch.testing.assert_close(moved(norm / 4), free / 4, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moved(norm * 2), free)


def test_batch_norms_statistics_are_shared_and_not_generated(client: MakeClient):
    method, model = small(), build_model(MODELS.create({"name": "resnet", "width": 2}), (8, 8, 1), 3, Rng(0).torch("s"))
    server = begun(method, model)
    parameters = {name for name, _ in model.named_parameters()}
    assert set(start_of(server)) == parameters
    updates = updates_of(method, server, {0: 1.0, 1: 3.0})
    after = method.aggregate(server, [updates[0], replace(updates[1], num_examples=30)], step(), mean)
    sent = method.downlink(after, 4, step()).state
    name = next(name for name in sent if name.endswith("running_mean"))
    # 0 + (1 x 10 + 3 x 30) / 40.
    torch.testing.assert_close(sent[name], torch.full_like(sent[name], 2.5))


def test_an_autoencoders_decoder_is_neither_generated_nor_sent():
    spec = MODELS.create({"name": "autoencoder", "sizes": [4, 2], "hidden": 3})
    model = build_model(spec, (8, 2), 3, Rng(0).torch("start"))
    method = small()
    server = begun(method, model)
    assert {name.split(".")[0] for name in start_of(server)} == {"backbone", "head"}
    assert {name.split(".")[0] for name in method.downlink(server, 0, step()).state} == {"backbone", "head"}


def test_after_training_only_newcomers_train(client: MakeClient):
    method, model = small(newcomers=2), network()
    server = begun(method)
    old, new = (method.downlink(server, k, step("evaluate")) for k in (2, 3))
    assert isinstance(old, Generated)
    assert isinstance(new, Generated)
    assert (old.visit, new.visit) == (-1, 0)
    update, _ = method.train_client(model, old, {}, client(6, 0), step("evaluate"))
    assert (update.num_examples, update.state) == (0, old.state)
    update, _ = method.train_client(model, new, {}, client(6, 0), step("evaluate"))
    assert update.num_examples == 6
    assert any(not torch.equal(update.state[name], new.state[name]) for name in new.state)


def test_a_newcomer_moves_its_embedding_and_nothing_else():
    method = small(newcomers=2)
    server = begun(method)
    goal = updates_of(method, server, {3: 0.05}, "evaluate")
    after = method.aggregate(server, goal, step("evaluate"), mean)
    assert [name for name in server.extra if not torch.equal(server.extra[name], after.extra[name])] == [
        TABLE,
        VISITS,
    ]
    old, new = (under(NETWORK, state.extra)[EMBEDDING] for state in (server, after))
    assert torch.equal(new[[0, 1, 2, 4]], old[[0, 1, 2, 4]])
    downhill = by_autograd(server, goal)[EMBEDDING][3]
    cosine = torch.nn.functional.cosine_similarity(old[3] - new[3], downhill, dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-5)
    assert after.extra[VISITS].tolist() == [0, 0, 0, 1, 0]
    assert all(torch.equal(after.model[name], tensor) for name, tensor in server.model.items())
    next_visit = method.downlink(after, 3, step("evaluate"))
    assert isinstance(next_visit, Generated)
    assert next_visit.visit == 1


def test_a_newcomers_whole_step_is_the_best_along_the_gradient_where_h_is_linear():
    method = PFedHN(hidden=6, layers=0, newcomers=2, join_share=1.0)
    server = method.init_server(network(), None, Rng(0), 8)
    (goal,) = updates_of(method, server, {7: 0.05}, "evaluate")
    rows = [
        torch.cat([method.downlink(state, 7, step()).state[name].reshape(-1) for name in sorted(goal.state)])
        for state in (server, method.aggregate(server, [goal], step("evaluate"), mean))
    ]
    trained = torch.cat([goal.state[name].reshape(-1) for name in sorted(goal.state)])
    moved = rows[1] - rows[0]
    # What is left is at right angles to the way that was gone.
    assert float(moved.norm()) > 1e-3
    assert float(moved @ (rows[1] - trained)) == pytest.approx(0, abs=1e-5)
    assert (rows[1] - trained).norm() < (rows[0] - trained).norm()


def test_newcomers_begin_as_the_mean_of_those_who_trained():
    method = small(newcomers=2)
    server = begun(method)
    after = method.aggregate(server, updates_of(method, server, {0: 0.5}), step(), mean)
    table = under(NETWORK, after.extra)[EMBEDDING]
    torch.testing.assert_close(table[3:], table[:3].mean(dim=0).expand(2, -1))


def test_who_trains_and_how_often_newcomers_are_visited():
    assert (small().num_training_clients(5), small().evaluation_visits()) == (5, 0)
    assert (
        small(newcomers=2, join_visits=7).num_training_clients(5),
        small(newcomers=2, join_visits=7).evaluation_visits(),
    ) == (3, 7)
    with pytest.raises(ConfigError, match=r"^method.newcomers=5: must be less than clients=5$"):
        begun(small(newcomers=5))


def test_the_scored_network_is_the_generated_or_the_trained_one(client: MakeClient):
    found = {}
    for score in ("generated", "trained"):
        method, model = small(score=score), network()
        payload = method.downlink(begun(method), 1, step("evaluate"))
        own = method.personalize(model, payload, {}, client(6, 0), step("evaluate"), NoPersonalization())
        assert own is not None
        found[score] = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
    assert all(torch.equal(found["generated"][name], tensor) for name, tensor in payload.state.items())
    # Scored as `train_client` would leave it.
    update, _ = method.train_client(network(), payload, {}, client(6, 0), step())
    assert all(torch.equal(found["trained"][name], tensor) for name, tensor in update.state.items())


def test_a_run_scores_every_clients_own_network_and_puts_newcomers_back(tmp_path: Path):
    method = {"name": "pfedhn", "hidden": 8, "layers": 1, "steps": 5, "newcomers": 1, "join_visits": 2}
    made = run(experiment(method=method, rounds=2), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["main_metric"] == "personal_accuracy"
    assert 0 < summary["final"]["personal_accuracy"] <= 1
    assert "accuracy" not in summary["final"]
    record = made.journal.records[-1]
    assert [client for client, scores in record["clients"].items() if "personal_accuracy" in scores] == list("0123")
    assert made.strategy.server.extra[VISITS].tolist() == [0, 0, 0, 0]
