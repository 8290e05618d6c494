from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedssl.config import ConfigError
from fedssl.data.base import SOURCES
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Memory, Step, Update
from fedssl.methods.base import METHODS
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.partition.base import LABELS, PARTITIONS
from fedssl.partition.client_data import ClientDataFactory
from fedssl.partition.split import make_split
from fedssl.personalization.base import PERSONALIZATIONS, Personal
from fedssl.rng import Rng
from fedssl.training.hypernetwork import TABLE

USERS = 4
SOURCE = {"name": "imu_synthetic", "users": USERS, "server_subjects": 4, "classes": 3, "windows": 12, "window": 8}


def holdings(**choice: Any) -> ClientDataFactory:
    dataset = SOURCES.create({**SOURCE, "stride": 8, **choice}).read()
    labels = LABELS.create({"name": "client_rate", "rate": 0.3})
    split = make_split(dataset, PARTITIONS.create({"name": "natural"}), labels, USERS, 0.0, seed=0)
    return ClientDataFactory(dataset, split, False, torch.device("cpu"))


DATA = holdings()


class Federation:
    """A server and its users, without a network between them."""

    def __init__(self, seed: int = 0, **options: Any) -> None:
        options = {"domains": 2, "epochs": 2, "base_epochs": 2, "batch_size": 16, "hidden": 6, "tau": 0.11, **options}
        self.method: Any = METHODS.create({"name": "semipfl", **options})
        self.hook = PERSONALIZATIONS.create({"name": "mixture", "steps": 5})
        self.rng = Rng(seed)
        spec = MODELS.create({"name": "autoencoder", "sizes": [8, 4], "hidden": 6})
        self.model = build_model(spec, DATA.dataset.shape, DATA.dataset.num_classes, self.rng.torch("weights"))
        self.data = {user: DATA.client(user) for user in range(USERS)}
        self.server_data = DATA.server()
        self.method.check(self.model, self.server_data, USERS)
        self.server = self.method.init_server(self.model, self.server_data, self.rng, USERS)
        self.memory: dict[int, Memory] = {user: {} for user in range(USERS)}

    def step(self, exchange: str, round_: int, phase: Any) -> Step:
        return Step(exchange, round_, 9, phase, self.rng.at(round_=round_))

    def exchange(self, name: str, users: Sequence[int], round_: int, phase: Any = "train") -> dict[int, Update]:
        step, updates = self.step(name, round_, phase), {}
        for user in users:
            payload = self.method.downlink(self.server, user, step)
            template = self.method.uplink(self.server, payload, step)
            own = replace(step, rng=step.rng.at(client=user))
            made = self.method.train_client(self.model, payload, self.memory[user], self.data[user], own)
            updates[user], self.memory[user] = made
            assert {k: t.shape for k, t in updates[user].state.items()} == {k: t.shape for k, t in template.items()}
        answers = list(updates.values())
        server = self.method.aggregate(self.server, answers, step, None)
        self.server = self.method.train_server(server, self.model, self.server_data, answers, step)
        return updates

    def round(self, users: Sequence[int], round_: int = 1, phase: Any = "train") -> dict[int, Update]:
        self.server = replace(self.server, metrics={})
        updates = self.exchange("train", users, round_, phase)
        self.exchange("mixture", users, round_, phase)
        return updates

    def sweep(self, round_: int = 1) -> None:
        for _ in range(self.method.evaluation_visits()):
            self.round(range(USERS), round_, "evaluate")

    def own(self, user: int, round_: int = 1) -> Personal | None:
        step = self.step("mixture", round_, "evaluate")
        payload = self.method.downlink(self.server, user, step)
        own = replace(step, rng=step.rng.at(client=user))
        found: Personal | None = self.method.personalize(
            self.model, payload, self.memory[user], self.data[user], own, self.hook
        )
        return found

    def generated(self, user: int) -> dict[str, torch.Tensor]:
        return dict(self.method.downlink(self.server, user, self.step("train", 1, "train")).state)


def holding(data: ClientData, labelled: int, unlabelled: int) -> ClientData:
    """Give the client with fewer windows."""
    pool = np.concatenate([data.labelled, data.unlabelled])
    given = data.given.copy()
    given[pool] = -1
    given[pool[:labelled]] = data.dataset.train.y[pool[:labelled]]
    indices = replace(data.indices, labelled=pool[:labelled], unlabelled=pool[labelled : labelled + unlabelled])
    return replace(data, indices=indices, given=given)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(tensor.equal(other[name]) for name, tensor in one.items())


def test_a_round_moves_generated_networks_towards_what_users_trained():
    run = Federation()
    before = run.generated(1)
    updates = run.round([1])
    after = run.generated(1)

    def distance(state: dict[str, torch.Tensor]) -> float:
        return sum(float((tensor - updates[1].state[name]).square().sum()) for name, tensor in state.items())

    assert 0 < distance(after) < distance(before)
    assert updates[1].metrics["error_after"][0] < updates[1].metrics["error_before"][0]
    assert run.server.metrics["applied"] == 1


def test_users_outside_the_cohort_keep_their_embeddings():
    run = Federation()
    run.round([0, 1], 1)
    before = run.server.extra[TABLE].clone()
    run.round([0, 3], 2)
    moved = (run.server.extra[TABLE] != before).any(dim=1)
    assert moved.tolist() == [True, False, False, True]


def test_hooks_leave_the_state_they_are_given():
    run = Federation()
    kept = run.server
    copies = {name: tensor.clone() for name, tensor in kept.extra.items()}
    run.round([0, 1])
    assert same(kept.extra, copies)


def test_base_models_live_at_the_server_for_one_visit():
    run = Federation()
    run.exchange("train", [2], 1)
    held = {name.split(".")[1] for name in run.server.extra if name.startswith("base.")}
    run.exchange("mixture", [2], 1)
    assert held == {"2"}
    assert not [name for name in run.server.extra if name.startswith("base.")]


def test_the_encoder_of_the_mixture_is_the_one_the_user_trained():
    run = Federation()
    trained = run.round([2])[2].state
    made = run.own(2)
    assert made is not None
    assert same(trained, {name: tensor for name, tensor in run.model.state_dict().items() if name in trained})
    assert set(made.facts) >= {"weight_0", "weight_1", "kept_0", "kept_1", "labels", "uniform_macro_f1", "error"}
    assert made.facts["weight_0"] + made.facts["weight_1"] == pytest.approx(1, abs=1e-6)


def test_a_visit_without_base_models_leaves_the_old_mixture_whole():
    run = Federation()
    run.round([2])
    before = dict(run.memory[2])
    run.exchange("train", [2], 2)
    run.server = replace(run.server, extra={k: t for k, t in run.server.extra.items() if not k.startswith("base.")})
    run.exchange("mixture", [2], 2)
    assert same(run.memory[2], before)


def test_a_sweep_gives_every_user_a_model_and_trains_no_hypernetwork():
    run = Federation()
    run.round([0, 1])
    before = {name: tensor.clone() for name, tensor in run.server.extra.items()}
    assert run.own(3) is None
    run.sweep()
    assert all(run.own(user) is not None for user in range(USERS))
    assert same({k: t for k, t in run.server.extra.items() if k != "sweeps"}, before)


def test_last_visit_scores_users_as_they_were_left():
    run = Federation(eval_mode="last_visit")
    run.round([0])
    assert run.method.evaluation_visits() == 0
    assert [run.own(user) is None for user in range(USERS)] == [False, True, True, True]


HELD = {"no label": (0, 8), "one label": (1, 8), "few windows": (2, 1), "one window": (0, 1), "none": (0, 0)}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("aggregate", ["weights", "both"])
def test_users_with_little_take_part(held: str, aggregate: str):
    run = Federation()
    run.hook = PERSONALIZATIONS.create({"name": "mixture", "aggregate": aggregate})
    run.data[1] = holding(run.data[1], *HELD[held])
    sent = run.generated(1)
    updates = run.round([0, 1])
    assert updates[1].num_examples == sum(HELD[held])
    assert same(sent, updates[1].state) == (held == "none")
    assert run.server.metrics["applied"] == (1 if held == "none" else 2)
    made = run.own(1)
    assert made is not None
    assert np.isfinite(list(made.facts.values())).all()
    assert made.facts["labels"] == HELD[held][0]


def test_where_the_filter_leaves_nothing_it_widens_and_says_so():
    run = Federation(tau=0.0)
    run.round([0, 1])
    assert run.server.metrics["fallbacks"] == 2
    assert run.server.metrics["kept_0"] == run.server.metrics["kept_1"] == 0
    made = run.own(0)
    assert made is not None
    assert [made.facts[name] for name in ("kept_0", "kept_1", "fallback")] == [0, 0, 1]


def test_without_a_filter_all_windows_count():
    run = Federation(filter="none")
    run.round([0])
    assert run.server.metrics["kept_0"] == run.server.metrics["kept_1"] == 1
    assert run.server.metrics["fallbacks"] == 0


def test_one_domain_has_one_base_model_of_weight_one():
    run = Federation(domains=1, filter="none")
    run.round([0])
    made = run.own(0)
    assert made is not None
    assert made.facts["weight_0"] == 1
    assert "weight_1" not in made.facts


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"domains": 3}, [2, 1, 1]),
        ({"domains": 0}, [1, 1, 1, 1]),
        ({"domain_of": [1, 0, 1, 1]}, [1, 3]),
    ],
)
def test_the_servers_subjects_are_cut_into_domains(options: dict[str, Any], sizes: list[int]):
    run = Federation(**options)
    counts = torch.bincount(run.method.domains_of(run.server_data))
    assert (counts / counts.sum() * 4).tolist() == sizes


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"domains": 5}, "method.domains=5: must be at most 4"),
        ({"domain_of": [0, 1]}, r"method.domain_of=\[0, 1\]"),
        ({"domain_of": [0, 0, 2, 2]}, r"method.domain_of=\[0, 0, 2, 2\]"),
        ({"newcomers": USERS}, "method.newcomers=4: must be less than clients=4"),
        ({"base_when": "scored", "eval_mode": "last_visit"}, "method.eval_mode='last_visit': must be sweep with"),
        ({"base_when": "scored", "base_init": "warm"}, "method.base_init='warm': must be fresh with"),
        ({"factors": []}, r"method.factors=\[\]"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], field: str):
    with pytest.raises(ConfigError, match=field):
        Federation(**options)


def test_a_server_without_data_or_autoencoder_is_refused():
    run = Federation()
    with pytest.raises(ConfigError, match=r"data='no windows at the server'.*server_subjects above 0"):
        run.method.check(run.model, None, USERS)
    with pytest.raises(ConfigError, match="model='Linear': must be autoencoder"):
        run.method.check(torch.nn.Linear(1, 1), run.server_data, USERS)


def test_some_domain_of_the_server_needs_two_classes():
    run = Federation()
    index = run.server_data.labelled
    y, subject = DATA.dataset.train.y[index], DATA.dataset.train.group[index]
    first, other = index[(y == 0) & (subject == 0)][:1], [index[(y == 1) & (subject == who)][:1] for who in (0, 3)]
    together, apart = (
        replace(run.server_data, indices=replace(run.server_data.indices, labelled=np.r_[first, one])) for one in other
    )
    method = replace(run.method, domains=0)
    method.check(run.model, together, USERS)
    with pytest.raises(ConfigError, match="data='imu_synthetic': must be one with 2 windows of 2 classes in a domain"):
        method.check(run.model, apart, USERS)


def test_base_models_only_before_scores_leave_all_else_as_it_is():
    runs = [Federation(base_when=when) for when in ("visit", "scored")]
    for run in runs:
        for round_, users in enumerate(([0, 1], [2, 3], [1, 2]), 1):
            run.round(users, round_)
    often, seldom = runs
    assert any(name.startswith("heads.") for name in often.memory[1])
    assert not any(name.startswith("heads.") for name in seldom.memory[1])
    assert same(often.server.extra, seldom.server.extra)
    for run in runs:
        run.sweep(3)
    assert all(same(often.memory[user], seldom.memory[user]) for user in range(USERS))


def test_base_models_begin_alike_for_all_users_and_rounds_unless_warm():
    runs = [Federation(base_init=how, filter="none") for how in ("fresh", "warm")]
    for run in runs:
        run.round([0], 1)
        run.round([0], 2)
    fresh, warm = runs
    assert not [name for name in fresh.server.extra if name.startswith("last.")]
    assert {name.split(".")[1] for name in warm.server.extra if name.startswith("last.")} == {"0"}
    assert int(fresh.memory[0]["heads.0.norm1.num_batches_tracked"]) * 2 == int(
        warm.memory[0]["heads.0.norm1.num_batches_tracked"]
    )


def test_slow_devices_cut_epochs_and_take_longer():
    fast, slow = Federation(epochs=4), Federation(epochs=4, hardware="slow", slow_epochs="all")
    cut = Federation(epochs=4, hardware="slow", factors=[1.0, 2.0, 8.0])
    steps = [{u: update.metrics["steps"][0] for u, update in run.round([0, 1, 2]).items()} for run in (fast, slow, cut)]
    assert steps[0] == steps[1] == {0: steps[0][0], 1: steps[0][0], 2: steps[0][0]}
    assert steps[2] == {0: steps[0][0], 1: steps[0][0] / 2, 2: steps[0][0] / 4}
    more = slow.server.metrics["simulated_seconds"] - fast.server.metrics["simulated_seconds"]
    assert more == pytest.approx(3 * steps[0][2] * slow.method.step_seconds)


def test_a_device_that_drops_out_changes_nothing():
    run = Federation(hardware="dropout", drop_rate=0.999)
    before = {name: tensor.clone() for name, tensor in run.server.extra.items()}
    updates = run.round([0, 1])
    assert [update.state for update in updates.values()] == [{}, {}]
    assert same(run.server.extra, before)
    assert run.memory[0] == {}
    assert run.server.metrics["applied"] == 0
    run.sweep()
    assert run.own(0) is not None


@pytest.mark.parametrize("stale", ["drop", "apply"])
def test_late_answers_wait_and_are_then_used_or_dropped(stale: str):
    run = Federation(hardware="late", late_rate=1.0, max_delay=1, stale=stale)
    first = {name: tensor.clone() for name, tensor in run.server.extra.items()}
    run.round([0], 1)
    assert {name: int(t) for name, t in run.server.extra.items() if name.endswith(".due")} == {"late.0.due": 2}
    assert run.memory[0] == {}
    assert run.server.extra[TABLE].equal(first[TABLE])
    run.round([1], 2)
    moved = (run.server.extra[TABLE] != first[TABLE]).any(dim=1).tolist()
    assert moved == [stale == "apply", False, False, False]
    assert run.server.metrics["applied"] == float(stale == "apply")
    assert {name for name in run.server.extra if name.startswith("late.")} == {"late.1.row", "late.1.due"}


def test_a_late_answer_is_worth_as_much_if_nothing_moved_since():
    late = Federation(hardware="late", late_rate=1.0, max_delay=1, stale="apply")
    in_time = Federation()
    late.round([0], 1)
    in_time.round([0], 1)
    late.exchange("train", [1], 2)
    names = [name for name in in_time.server.extra if name.startswith("hypernetwork.")]
    assert all(late.server.extra[name].equal(in_time.server.extra[name]) for name in names)


@pytest.mark.parametrize("new_user", ["mean_embedding", "fit_embedding"])
def test_newcomers_join_by_an_embedding_alone(new_user: str):
    run = Federation(newcomers=1, new_user=new_user, join_visits=2)
    assert run.method.num_training_clients(USERS) == 3
    assert run.method.evaluation_visits() == (3 if new_user == "fit_embedding" else 1)
    run.round([0, 1, 2])
    before = {name: tensor.clone() for name, tensor in run.server.extra.items()}
    torch.testing.assert_close(before[TABLE][3], before[TABLE][:3].mean(dim=0))
    run.sweep()
    after = run.server.extra
    assert (after[TABLE] != before[TABLE]).any(dim=1).tolist() == [False, False, False, new_user == "fit_embedding"]
    assert all(after[name].equal(tensor) for name, tensor in before.items() if name != TABLE)
    assert run.own(3) is not None
    assert run.own(0) is not None


def test_equal_seeds_give_equal_bits_and_others_do_not():
    one, again, other = Federation(), Federation(), Federation(seed=1)
    for run in (one, again, other):
        run.round([0, 1], 1)
        run.round([1, 2], 2)
    assert same(one.server.extra, again.server.extra)
    assert all(same(one.memory[user], again.memory[user]) for user in range(USERS))
    assert not one.server.extra[TABLE].equal(other.server.extra[TABLE])


def test_the_report_gets_a_map_and_windows():
    run = Federation()
    run.round([0, 1])
    found = json.loads(json.dumps(run.method.diagnostics(run.server, run.model, list(run.data.values()))))
    assert [point["client"] for point in found["embeddings"]] == [0, 1, 2, 3]
    assert [point["subject"] for point in found["embeddings"]] == [4, 5, 6, 7]
    assert len(found["reconstructions"]) == 2 * USERS
    mixed = replace(run.data[0].indices, labelled=np.concatenate([run.data[user].labelled for user in (0, 1)]))
    held = [replace(run.data[0], indices=mixed), holding(run.data[1], 0, 0)]
    assert [one["subject"] for one in run.method.diagnostics(run.server, run.model, held)["embeddings"]] == ["", ""]
    channels, steps = 3, 8
    picture = found["reconstructions"][0]
    assert np.shape(picture["window"]) == np.shape(picture["reconstruction"]) == (channels, steps)
