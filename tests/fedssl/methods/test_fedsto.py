"""Tests of fedssl.methods.fedsto: phases, payloads, and what it is without its own parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys

from fedssl.data.base import Indices
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Payload, ServerState, Step, Update
from fedssl.losses.orthogonal import orthogonality_exact, weight_matrices
from fedssl.methods.fedsto import FedSTO
from fedssl.methods.ssfl import EMA, SSFL
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng
from server.aggregation import Aggregator

MakeClient = Callable[..., ClientData]
LOW = {"tau1": 0.0, "tau2": 0.0, "nms_score": 0.0, "max_boxes": 5, "batch_size": 4, "warm_up": 0}


def network(**options: Any) -> torch.nn.Module:
    spec = MODELS.create({"name": "detector", "width": 2, **options})
    return build_model(spec, (64, 64, 3), 3, Rng(0).torch("initial weights"))


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def at(round_: int) -> Step:
    return Step("train", round_, 4, "train", Rng(0, round_, 1))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def exact_r(model: torch.nn.Module) -> float:
    with torch.no_grad():
        return float(orthogonality_exact(weight_matrices(model)))


def averaged(chosen: FedSTO, server: ServerState, updates: list[Update], step: Step, name: str = "FedAvg", **own: Any):
    names = frozenset(name for name, _ in network().named_parameters())
    aggregator = Aggregator({"name": name, **own}, names)
    return chosen.aggregate(server, updates, step, lambda u: aggregator.average(server.model, u, step.round_))


def test_phase_one_moves_the_backbone_alone(client: MakeClient):
    chosen, model = FedSTO(**LOW, selective_rounds=2, ema_reset=False), network()
    sent = state_of(model)
    update, memory = chosen.train_client(model, Payload(sent), {}, client(0, 12, detecting=True), at(2))
    assert update.state.keys() == {name for name in sent if name.startswith("backbone.")}
    assert chosen.uplink(ServerState(sent), Payload(sent), at(2)).keys() == update.state.keys()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, sent[name])}
    assert "backbone.stem.conv.weight" in changed
    assert "backbone.stem.norm.running_mean" in changed
    assert all(name.startswith("backbone.") for name in changed)
    teacher = {name for name in sent if not torch.equal(memory[EMA + name], sent[name])}
    assert "backbone.stem.conv.weight" in teacher
    assert all(name.startswith("backbone.") for name in teacher)


def test_an_average_of_a_client_in_phase_one_leaves_neck_and_head_to_the_bit(client: MakeClient):
    chosen, model = FedSTO(**LOW, selective_rounds=2, client_average=0.75), network()
    sent = state_of(model)
    chosen.train_client(model, Payload(sent), {}, client(0, 12, detecting=True), at(2))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, sent[name])}
    assert "backbone.stem.conv.weight" in changed
    assert all(name.startswith("backbone.") for name in changed)


def test_phase_two_moves_and_sends_everything(client: MakeClient):
    chosen, model = FedSTO(**LOW, selective_rounds=2), network()
    sent = state_of(model)
    update, _ = chosen.train_client(model, Payload(sent), {}, client(0, 12, detecting=True), at(3))
    assert update.state.keys() == sent.keys()
    for name in ("neck.lateral5.conv.weight", "neck.lateral5.norm.running_mean", "head.convs.0.weight"):
        assert not torch.equal(update.state[name], sent[name])


@pytest.mark.parametrize(
    ("freeze", "parts"),
    [("neck_and_head", {"backbone"}), ("head", {"backbone", "neck"}), ("none", {"backbone", "neck", "head"})],
)
def test_what_is_frozen_is_a_choice(freeze: str, parts: set[str]):
    state = state_of(network())
    sent = FedSTO(freeze=freeze).uplink(ServerState(state), Payload(state), at(1))
    assert {name.split(".")[0] for name in sent} == parts


def test_the_servers_phase_one_epoch_changes_all_parts(client: MakeClient):
    data = client(6, 0, detecting=True)
    mine = replace(data, client_id=-1, indices=Indices(np.arange(6), np.zeros(0, np.int64)))
    chosen, model = FedSTO(**LOW), network()
    server = chosen.init_server(model, mine, Rng(0), 3)
    after = chosen.train_server(server, model, mine, [], replace(at(1), rng=Rng(0, 1)))
    for name in ("backbone.stem.conv.weight", "neck.lateral5.conv.weight", "head.convs.0.weight"):
        assert not torch.equal(after.model[name], server.model[name])
    assert after.metrics["phase"] == 1.0
    exact = exact_r(model)
    assert after.metrics["orthogonality"] == pytest.approx(exact, abs=1e-9)
    count = sum(m.shape[0] != m.shape[1] for m in weight_matrices(model))
    assert after.metrics["orthogonality_above_floor"] == pytest.approx(exact - count, abs=1e-9)


def test_backbones_are_averaged_by_pictures_and_the_rest_stays_the_servers():
    chosen, server = FedSTO(), ServerState(state_of(network()))
    backbone = {name: t for name, t in server.model.items() if name.startswith("backbone.") and t.is_floating_point()}
    updates = [
        Update(client, count, {name: torch.full_like(t, value) for name, t in backbone.items()})
        for client, count, value in ((0, 10, 0.0), (1, 30, 4.0))
    ]
    made = averaged(chosen, server, updates, at(1))
    assert all(bool((made.model[name] == 3.0).all()) for name in backbone)
    rest = {name: t for name, t in made.model.items() if not name.startswith("backbone.")}
    assert equal(rest, {name: t for name, t in server.model.items() if name in rest})


def test_equal_answers_leave_the_model():
    server = ServerState(state_of(network()))
    updates = [Update(client, 7, server.model) for client in range(2)]
    assert equal(averaged(FedSTO(), server, updates, at(20)).model, server.model)


def test_fedopts_step_at_the_server():
    # W + 0.9 (average - W) with W = 1, average 2.
    server = ServerState({name: torch.ones_like(t) for name, t in network().state_dict().items()})
    name = "backbone.stem.conv.weight"
    update = Update(0, 5, {name: torch.full_like(server.model[name], 2.0)})
    made = averaged(FedSTO(), server, [update], at(1), "FedAvgM", server_learning_rate=0.9, server_momentum=0.0)
    torch.testing.assert_close(made.model[name], torch.full_like(server.model[name], 1.9))


@pytest.mark.parametrize(("round_", "weight"), [(1, 1e-4), (3, 0.0)])
def test_without_pseudo_boxes_a_client_gives_back_what_it_got(round_: int, weight: float, client: MakeClient):
    chosen = FedSTO(**{**LOW, "nms_score": 1.0}, selective_rounds=2, orthogonal=weight, ema_reset=False)
    model = network()
    sent = state_of(model)
    update, memory = chosen.train_client(model, Payload(sent), {}, client(0, 8, detecting=True), at(round_))
    assert equal(update.state, {name: sent[name] for name in update.state})
    assert equal({name[len(EMA) :]: tensor for name, tensor in memory.items()}, sent)
    assert equal(state_of(model), sent)


def test_without_pseudo_boxes_phase_two_makes_neck_and_head_more_orthogonal(client: MakeClient):
    options = {**LOW, "nms_score": 1.0, "weight_decay": 0.0, "momentum": 0.0, "lr": 1e-3}
    chosen, model = FedSTO(**options, selective_rounds=0, orthogonal=1.0, orthogonal_iters=20), network()
    sent = state_of(model)
    before = exact_r(model)
    update, _ = chosen.train_client(model, Payload(sent), {}, client(0, 8, detecting=True), at(1))
    changed = {name.split(".")[0] for name, t in update.state.items() if not torch.equal(t, sent[name])}
    assert changed == {"neck", "head"}
    assert exact_r(model) < before


def test_without_freezing_and_penalty_it_is_ssfl(client: MakeClient):
    options = {"warm_up": 1, "batch_size": 4, "tau1": 0.0, "tau2": 0.0, "nms_score": 0.0, "max_boxes": 5}
    data = client(0, 12, detecting=True)
    mine = replace(client(6, 0, detecting=True), client_id=-1)
    made = []
    for chosen in (SSFL(**options), FedSTO(**options, selective_rounds=1, freeze="none", orthogonal=0.0)):
        model = network()
        server = chosen.init_server(model, mine, Rng(0), 1)
        for round_ in (1, 2):
            step = at(round_)
            update, _ = chosen.train_client(model, chosen.downlink(server, 1, step), {}, data, step)
            server = averaged(chosen, server, [update], step)  # type: ignore[arg-type]
            server = chosen.train_server(server, model, mine, [update], replace(step, rng=Rng(0, round_)))
        made.append(server)
    assert equal(made[0].model, made[1].model)
    assert equal(made[0].extra, made[1].extra)


def test_before_the_first_round_it_is_what_the_servers_labels_give(client: MakeClient):
    mine = replace(client(6, 0, detecting=True), client_id=-1)
    options = {"warm_up": 2, "batch_size": 4, "warm_up_weights": ""}
    one, other = (
        chosen.init_server(network(), mine, Rng(0), 3)
        for chosen in (FedSTO(**options), SSFL(**options, labeller="none"))
    )
    assert equal(one.model, other.model)
    assert not equal(one.model, state_of(network()))


def test_bytes_of_the_papers_detector():
    # YOLOv5-L for five classes: 106.33 of 184.64 MB; 100 of 250 rounds then save 17 % (table 8 counts otherwise).
    with torch.device("meta"):
        spec = MODELS.create({"name": "detector", "width": 64, "depths": [3, 6, 9, 3], "neck_depth": 3})
        model = spec.build((640, 640, 3), 5)
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    chosen = FedSTO(selective_rounds=100)
    sizes = [
        sum(t.nbytes for t in chosen.uplink(ServerState(state), Payload(state), at(round_)).values()) / 1e6
        for round_ in (100, 101)
    ]
    assert sizes == pytest.approx([106.331648, 184.639336], abs=1e-6)
    assert 1 - (100 * sizes[0] + 150 * sizes[1]) / (250 * sizes[1]) == pytest.approx(0.16964, abs=1e-5)


@pytest.mark.parametrize(
    ("first", "total", "share"), [(150, 803.475 + 1362.75, 0.2052), (100, 535.65 + 1362.75, 0.1642)]
)
def test_the_papers_traffic_comes_out_of_the_phases(first: int, total: float, share: float):
    # Table 8: 181.7 MB a model, 107.13 MB without what phase 1 leaves out, 50 clients a round; 150 or 100 + 150 rounds.
    method = FedSTO(selective_rounds=first)
    sizes = {"backbone": 107.13, "neck and head": 181.7 - 107.13}
    whole, phases = sum(sizes.values()), [method.phase(at(round_)) for round_ in range(1, first + 151)]
    sent = [sizes["backbone"] if phase.frozen else whole for phase in phases]
    assert 50 * sum(sent) / 1000 == pytest.approx(total, abs=1e-6)
    assert 1 - sum(sent) / (181.7 * len(sent)) == pytest.approx(share, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bits_in_either_phase(stop: int, tmp_path: Path):
    chosen = toys.experiment(
        method={
            "name": "fedsto",
            "warm_up": 2,
            "selective_rounds": 2,
            **{k: LOW[k] for k in ("tau1", "tau2", "nms_score")},
        },
        data={"name": "shapes_synthetic", "size": 64, "pictures": 24, "test_pictures": 2},
        model={"name": "detector", "width": 2},
        partition={"name": "natural"},
        labels={"name": "none"},
        clients=3,
        rounds=4,
        validation=0.0,
    )
    whole = toys.run(chosen, tmp_path / "whole")

    class Stop:
        def begin(self, *_: Any) -> None: ...

        def client(self, *_: Any) -> None: ...

        def warn(self, line: str) -> None: ...

        def round(self, record: dict[str, Any]) -> None:
            if record["round"] == stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toys.run(chosen, tmp_path / "cut", watcher=Stop())
    cut = toys.run(chosen, tmp_path / "cut", resume=True)
    assert equal(whole.finished.model, cut.finished.model)
    assert equal(whole.finished.extra, cut.finished.extra)
