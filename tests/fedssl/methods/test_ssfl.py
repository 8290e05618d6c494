"""Tests of fedssl.methods.ssfl: what a round does to which tensors, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedssl.config import ConfigError
from fedssl.data.base import Indices
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Payload, ServerState, Step
from fedssl.methods.ssfl import EMA, MOMENTUM, SSFL
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.models.detection.anchors import anchors_from
from fedssl.models.ema import ema_alpha
from fedssl.rng import Rng
from fedssl.training.detector import momenta, restore, set_modes, sgd, take_step
from fedssl.training.warm_up import warm_up_scores

MakeClient = Callable[..., ClientData]
STEP = Step("train", 1, 4, "train", Rng(0, 1, 1))
LOW = {"tau1": 0.0, "tau2": 0.0, "nms_score": 0.0, "max_boxes": 5}
"""Every box that an untrained model gives is a pseudo-box."""


def method(**options: Any) -> SSFL:
    return SSFL(**{"warm_up": 0, "batch_size": 4, **options})


def network() -> torch.nn.Module:
    spec = MODELS.create({"name": "detector", "width": 2})
    return build_model(spec, (64, 64, 3), 3, Rng(0).torch("initial weights"))


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def at_server(data: ClientData) -> ClientData:
    return replace(data, client_id=-1, indices=Indices(np.arange(6), np.zeros(0, np.int64)))


def trained(chosen: SSFL, data: ClientData, step: Step = STEP) -> tuple[Any, dict[str, torch.Tensor], torch.nn.Module]:
    model = network()
    sent = state_of(model)
    update, _ = chosen.train_client(model, Payload(sent), {}, data, step)
    return update, sent, model


def test_without_any_pseudo_box_nothing_changes(client: MakeClient):
    update, sent, _ = trained(method(nms_score=1.0), client(0, 12, detecting=True))
    assert equal(update.state, sent)
    assert update.num_examples == 12
    assert update.metrics["skipped_batches"] == (3.0, 3.0)
    assert update.metrics["pseudo_per_image"] == (0.0, 12.0)
    # Eleven of twelve pictures have one true box, and none was found.
    assert update.metrics["pseudo_coverage"] == (0.0, 11.0)


def test_pseudo_boxes_train_and_the_model_scored_is_the_one_sent_back(client: MakeClient):
    update, sent, model = trained(method(**LOW), client(0, 12, detecting=True))
    assert update.metrics["pseudo_per_image"][0] == 60.0
    assert update.metrics["skipped_batches"] == (0.0, 3.0)
    assert update.metrics["failed_steps"] == (0.0, 3.0)
    for part in ("backbone.stem.conv.weight", "neck.lateral5.conv.weight", "head.convs.0.weight"):
        assert not torch.equal(update.state[part], sent[part])
    assert equal(update.state, state_of(model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_hidden_labels_do_not_train(client: MakeClient):
    data = client(0, 8, detecting=True)
    train = data.dataset.train
    moved = replace(train, boxes=train.boxes * 0.5, box_class=(train.box_class + 1) % 3)
    other = replace(data, dataset=replace(data.dataset, train=moved))
    assert equal(trained(method(**LOW), data)[0].state, trained(method(**LOW), other)[0].state)


def test_the_labeller_follows_the_student(client: MakeClient):
    chosen = method(**LOW, ema_alpha=0.5, ema_reset=False)
    model, data = network(), client(0, 4, detecting=True)
    sent = state_of(model)
    update, memory = chosen.train_client(model, Payload(sent), {}, data, STEP)
    teacher = {name[len(EMA) :]: tensor for name, tensor in memory.items()}
    # One step: half of the sent weights, half of the student's.
    name = "head.convs.0.weight"
    torch.testing.assert_close(teacher[name], (sent[name] + update.state[name]) / 2)
    assert torch.equal(teacher["backbone.stem.norm.running_mean"], update.state["backbone.stem.norm.running_mean"])


def test_the_model_sent_labels_even_where_averages_are_kept(client: MakeClient):
    data, sent = client(0, 4, detecting=True), state_of(network())
    kept, forgotten = (
        method(**LOW, labeller="global", ema_reset=reset).train_client(network(), Payload(sent), {}, data, STEP)
        for reset in (False, True)
    )
    assert kept[1] == {}
    assert equal(kept[0].state, forgotten[0].state)


def test_by_default_the_average_is_of_the_epochs_length_and_forgotten(client: MakeClient):
    data = client(0, 12, detecting=True)
    own = trained(method(**LOW, ema_alpha=ema_alpha(3)), data)[0]
    assert equal(own.state, trained(method(**LOW), data)[0].state)
    assert ema_alpha(20) == pytest.approx(0.992226, abs=1e-6)
    _, memory = method(**LOW).train_client(network(), Payload(state_of(network())), {}, data, STEP)
    assert memory == {}


def test_with_all_labels_no_teacher_is_asked(client: MakeClient):
    one, other = (trained(method(**options), client(12, 0, detecting=True))[0] for options in ({}, LOW))
    assert equal(one.state, other.state)
    assert "pseudo_per_image" not in one.metrics


@pytest.mark.parametrize("held", [(0, 1), (1, 0), (0, 3), (2, 3)])
def test_small_clients(held: tuple[int, int], client: MakeClient):
    update, sent, _ = trained(method(**LOW), client(*held, detecting=True))
    assert not equal(update.state, sent)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in update.state.values())
    if sum(held) == 1:  # a batch of one has no statistics of its own
        assert torch.equal(update.state["backbone.stem.norm.running_mean"], sent["backbone.stem.norm.running_mean"])


def test_pictures_without_boxes_and_of_one_class_train(client: MakeClient):
    data = client(0, 12, detecting=True)
    y = data.dataset.train.y
    for index in (np.flatnonzero(y == 1), np.flatnonzero(y < 0)):
        mine = replace(data, indices=Indices(index, np.zeros(0, np.int64)))
        update, sent, _ = trained(method(), mine)
        assert not equal(update.state, sent)
        assert np.isfinite(update.metrics["loss"][0])


class NotFinite(SSFL):
    """Fails in every step."""

    def client_loss(self, model: torch.nn.Module, *args: Any) -> tuple[torch.Tensor, dict[str, tuple[float, float]]]:
        return next(model.parameters()).sum() * float("nan"), {}


def test_a_client_whose_steps_fail_says_so(client: MakeClient):
    with pytest.raises(FloatingPointError, match=r"^3 of 3 steps had no finite loss$"):
        trained(NotFinite(batch_size=4), client(0, 12, detecting=True))


def poisoned(call: int) -> torch.nn.Module:
    """Give a network whose pictures are not numbers in one forward pass of training."""
    model, seen = network(), []

    def spoil(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        seen.extend([None] * module.training)
        return (args[0] * float("nan"),) if module.training and len(seen) == call else None

    model.register_forward_pre_hook(spoil)
    return model


def batches_seen(state: dict[str, torch.Tensor]) -> set[int]:
    return {int(tensor) for name, tensor in state.items() if name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("call", [1, 12])
def test_a_failed_step_of_a_client_leaves_no_trace(call: int, client: MakeClient):
    chosen, model = method(**{**LOW, "batch_size": 2}), poisoned(call)
    update, _ = chosen.train_client(model, Payload(state_of(model)), {}, client(0, 24, detecting=True), STEP)
    assert update.metrics["failed_steps"] == (1.0, 12.0)
    for name in ("loss", "pseudo_loss_box", "pseudo_loss_class", "pseudo_loss_objectness"):
        assert np.isfinite(update.metrics[name][0])
        assert update.metrics[name][1] == 11.0
    # Its pictures and what was found in them count all the same.
    assert update.metrics["pseudo_per_image"] == (120.0, 24.0)
    assert batches_seen(update.state) == {11}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in update.state.values())


def test_a_failed_step_of_the_server_is_counted_and_leaves_no_trace(client: MakeClient):
    data = replace(client(24, 0, detecting=True), client_id=-1)
    server = method().init_server(network(), data, Rng(0), 3)
    made = method(batch_size=2).train_server(server, poisoned(3), data, [], STEP)
    assert made.metrics["server_failed_steps"] == 1.0
    assert np.isfinite(made.metrics["server_loss"])
    assert batches_seen(made.model) == {11}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in made.model.values())
    whole = method(batch_size=2).train_server(server, network(), data, [], STEP)
    assert whole.metrics["server_failed_steps"] == 0.0


def test_a_server_whose_steps_fail_says_where(client: MakeClient):
    data = replace(client(24, 0, detecting=True), client_id=-1)
    server = method().init_server(network(), data, Rng(0), 3)
    with pytest.raises(FloatingPointError, match=r"^the server: 1 of 6 steps had no finite loss$"):
        method().train_server(server, poisoned(6), data, [], STEP)
    with pytest.raises(FloatingPointError, match=r"^the server's warm-up: 1 of 6 steps had no finite loss$"):
        method(warm_up=1, warm_up_weights="").init_server(poisoned(1), data, Rng(0), 3)


def test_clients_that_do_not_train_send_nothing(client: MakeClient):
    chosen, server = method(labeller="none"), ServerState(state_of(network()))
    payload = chosen.downlink(server, 1, STEP)
    assert chosen.uplink(server, payload, STEP) == {}
    update, sent, model = trained(chosen, client(6, 6, detecting=True))
    assert (update.num_examples, update.state) == (0, {})
    assert equal(state_of(model), sent)


def test_the_server_trains_every_part_and_its_momentum_goes_on(client: MakeClient):
    data, model = at_server(client(6, 0, detecting=True)), network()
    server = method().init_server(model, data, Rng(0), 3)
    boxes, _, _ = data.dataset.train.boxes_at(data.labelled)
    assert torch.equal(server.model["head.anchors"], anchors_from(boxes, Rng(0).key("anchors")))
    assert "map50_total" in warm_up_scores(server)
    made = {}
    for kind in ("kept", "fresh"):
        chosen, now = method(server_optimizer=kind), copy.deepcopy(server)
        for round_ in (1, 2):
            now = chosen.train_server(now, model, data, [], replace(STEP, round_=round_, rng=Rng(0, round_)))
        made[kind] = now
    assert not equal(made["kept"].model, made["fresh"].model)
    assert made["kept"].metrics["warm_up_map50_total"] == warm_up_scores(server)["map50_total"]
    assert {name for name in made["kept"].extra if name.startswith(MOMENTUM)} == {
        MOMENTUM + name for name, _ in model.named_parameters()
    }
    for part in ("backbone", "neck", "head"):
        changed = [name for name in server.model if name.startswith(part) and "weight" in name]
        assert not any(torch.equal(server.model[name], made["kept"].model[name]) for name in changed)


def test_the_server_sends_a_moving_average_of_its_steps(client: MakeClient):
    data = at_server(client(6, 0, detecting=True))
    server = method().init_server(network(), data, Rng(0), 3)

    def after(batch_size: int, **options: Any) -> ServerState:
        return method(batch_size=batch_size, **options).train_server(server, network(), data, [], STEP)

    one, averaged = after(6), after(6, server_average=0.75)
    for name, _ in network().named_parameters():
        wanted = 0.75 * server.model[name] + 0.25 * one.model[name]
        torch.testing.assert_close(averaged.model[name], wanted)
    statistic = "backbone.stem.norm.running_mean"
    assert torch.equal(averaged.model[statistic], one.model[statistic])
    assert equal(averaged.extra, one.extra)
    # The second step begins where the first ended, and not at the average.
    two, averaged = after(3), after(3, server_average=0.75)
    assert equal(averaged.extra, two.extra)
    assert not equal(averaged.model, two.model)


def test_the_optimisers_state_goes_over_a_cut():
    def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            take_step(optimizer, sum((p**2).sum() for p in model.parameters()), 0.0)  # type: ignore[arg-type]

    whole, cut = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    cut.load_state_dict(whole.state_dict())
    steps(whole, sgd(whole, 0.01, 0.9, 0.1), 3)
    first = sgd(cut, 0.01, 0.9, 0.1)
    steps(cut, first, 2)
    second = sgd(cut, 0.01, 0.9, 0.1)
    restore(cut, second, momenta(cut, first))
    steps(cut, second, 1)
    assert equal(state_of(whole), state_of(cut))


def test_weights_alone_decay_and_a_gradient_is_cut():
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0), model.bias.fill_(2.0)
    optimizer = sgd(model, 0.1, 0.0, 0.5)
    # The gradient (30, 40) is cut from norm 50 to 10; the weight alone decays by 0.1 * 0.5 * 2.
    assert take_step(optimizer, 30 * model.weight.sum() + 40 * model.bias.sum(), 10.0)
    assert model.weight.item() == pytest.approx(2 - 0.6 - 0.1, abs=1e-5)
    assert model.bias.item() == pytest.approx(2 - 0.8, abs=1e-5)
    before = state_of(model)
    assert not take_step(optimizer, model.weight.sum() * float("inf"), 10.0)
    assert equal(state_of(model), before)


def test_frozen_parts_keep_their_statistics():
    model = network()
    set_modes(model, ("neck",), 4)
    assert {name for name, module in model.named_children() if module.training} == {"backbone", "head"}
    set_modes(model, (), 1)
    assert not any(module.training for module in model.modules())


def test_the_learning_rate_rises_over_the_warm_up(client: MakeClient):
    data = at_server(client(4, 0, detecting=True))
    one = replace(data, indices=Indices(np.arange(4), np.zeros(0, np.int64)))
    chosen = method(momentum=0.0, weight_decay=0.0)
    moved = []
    for ramp in (0, 100):
        model = network()
        sent = state_of(model)
        chosen.supervise(model, one, Rng(0), 1, {}, ramp=ramp)
        moved.append(model.state_dict()["head.convs.0.weight"] - sent["head.convs.0.weight"])
    torch.testing.assert_close(moved[1] * 100, moved[0], rtol=1e-2, atol=5e-6)


def test_a_client_may_send_the_average_of_its_steps(client: MakeClient):
    data = client(0, 4, detecting=True)
    plain, sent, _ = trained(method(**LOW), data)
    averaged, _, model = trained(method(**LOW, client_average=0.75), data)
    name = "head.convs.0.weight"
    torch.testing.assert_close(averaged.state[name], 0.75 * sent[name] + 0.25 * plain.state[name])
    assert torch.equal(
        averaged.state["backbone.stem.norm.running_mean"], plain.state["backbone.stem.norm.running_mean"]
    )
    assert equal(averaged.state, state_of(model))


def test_refusals(client: MakeClient):
    with pytest.raises(ConfigError, match=r"^method='ssfl': must be one that needs no labelled samples"):
        method().check(network(), None, 3)
    blank = at_server(client(6, 0, detecting=True))
    bare = replace(blank.dataset.train, boxes=np.zeros((0, 4), np.float32), box_class=np.zeros(0, np.int64))
    bare = replace(bare, box_offsets=np.zeros_like(bare.box_offsets))
    with pytest.raises(
        ConfigError, match=r"^method='ssfl': must be one that needs no boxes .* its 6 pictures have none"
    ):
        method().check(network(), replace(blank, dataset=replace(blank.dataset, train=bare)), 3)
    with pytest.raises(ConfigError, match=r"^method\.tau2=0\.1: must be at least method\.tau1=0\.2"):
        method(tau1=0.2, tau2=0.1)
    with pytest.raises(ConfigError, match=r"^model='Linear': must be model=detector with method=ssfl"):
        method().check(torch.nn.Linear(1, 1), at_server(client(6, 0, detecting=True)), 3)


def test_the_report_gets_pictures_of_each_weather(client: MakeClient):
    data, model = client(6, 6, detecting=True), network()
    chosen = method()
    server = chosen.init_server(model, at_server(data), Rng(0), 3)
    told = chosen.diagnostics(server, network(), [data])
    assert [one["weather"] for one in told["pictures"]] == ["cloudy", "cloudy", "rainy", "rainy"]
    first = data.dataset.test.boxes_of(0)
    assert told["pictures"][0]["true"] == [[*map(float, first[0][0]), 0]]
    assert {"before", "after", "end", "picture"} < told["pictures"][0].keys()
    # Nothing was trained, so nothing was found that was not there before, and nothing was lost.
    assert told["final"] == told["warm_up"]
    assert told["collapsed"] is False
    better = replace(server, extra={**server.extra, "warm_up_score.map50_total": torch.tensor(0.9)})
    assert chosen.diagnostics(better, network(), [data])["collapsed"] is True
