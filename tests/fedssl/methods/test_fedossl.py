"""Tests of fedssl.methods.orca and fedossl: what is frozen, when losses begin, and identities between the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedssl.calibration.base import CALIBRATIONS
from fedssl.config import ConfigError
from fedssl.data.views.client_data import ClientData
from fedssl.federation import ServerState, Step, Update
from fedssl.methods.base import METHODS
from fedssl.methods.fedossl import FedoSSL
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng

MakeClient = Callable[..., ClientData]


def make_model(head: str = "cosine") -> torch.nn.Module:
    spec = MODELS.create({"name": "resnet", "width": 2, "head": head})
    return build_model(spec, (8, 8, 1), 3, Rng(0).torch("initial weights"))


def make(name: str, **options: Any) -> Any:
    return METHODS.create({"name": name, "batch_size": 6, "epochs": 2, **options})


def train(
    method: Any, data: ClientData, *, centroids: bool = False, round_: int = 1, rounds: int = 10, memory: Any = None
):
    model = make_model()
    server = method.init_server(model, None, Rng(0), 2)
    if centroids:
        server = replace(server, extra={**server.extra, "centroids": torch.eye(3, 16)})
    step = Step("train", round_, rounds, "train", Rng(0, round_, data.client_id))
    payload = method.downlink(server, data.client_id, step)
    update, memory = method.train_client(model, payload, memory or {}, data, step)
    return server, model, update, memory


def test_the_frozen_stages_stay_bit_for_bit(client: MakeClient):
    method = make("fedossl")
    server, model, update, _ = train(method, client(6, 12), centroids=True, round_=9)
    layers = int(server.extra["trunk_layers"])
    moved = [n for n, t in model.state_dict().items() if not torch.equal(t, server.model[n])]
    frozen = [n for n in server.model if n.startswith("backbone.") and int(n.split(".")[1]) < layers]
    assert frozen
    assert not set(moved) & set(frozen)
    assert update.state.keys() == server.model.keys() - set(frozen)
    assert "head.weight" in moved


def test_all_stages_train_if_asked(client: MakeClient):
    server, model, update, _ = train(make("orca", train="all"), client(6, 12))
    assert int(server.extra["trunk_layers"]) == 0
    assert update.state.keys() == server.model.keys()
    assert not torch.equal(model.state_dict()["backbone.0.weight"], server.model["backbone.0.weight"])


def test_frozen_batch_norm_in_training_mode_moves_its_statistics_alone(client: MakeClient):
    server, _, update, _ = train(make("orca", frozen_bn="train"), client(6, 12))
    assert not torch.equal(update.state["backbone.1.running_mean"], server.model["backbone.1.running_mean"])
    assert "backbone.1.weight" not in update.state


def test_without_its_own_terms_fedossl_is_federated_orca_bit_for_bit(client: MakeClient):
    none = {"uncertainty_weight": 0.0, "cluster_weight": 0.0, "centroid_weight": 0.0}
    for round_ in (1, 9):
        _, _, one, _ = train(make("fedossl", **none), client(6, 12), centroids=True, round_=round_)
        _, _, two, _ = train(make("orca"), client(6, 12), round_=round_)
        assert all(torch.equal(one.state[name], two.state[name]) for name in two.state)


def test_each_term_changes_the_weights(client: MakeClient):
    none = {"uncertainty_weight": 0.0, "cluster_weight": 0.0, "centroid_weight": 0.0, "centroid_threshold": 0.0}
    _, _, plain, _ = train(make("fedossl", **none), client(6, 12), centroids=True, round_=9)
    for name in ("uncertainty_weight", "cluster_weight", "centroid_weight"):
        _, _, other, _ = train(make("fedossl", **{**none, name: 1.0}), client(6, 12), centroids=True, round_=9)
        assert not torch.equal(plain.state["head.weight"], other.state["head.weight"]), name


@pytest.mark.parametrize(("rounds", "expected"), [(50, (5, 7)), (40, (4, 6)), (20, (2, 3)), (4, (1, 2)), (1, (1, 2))])
def test_the_stages_of_the_warm_up(rounds: int, expected: tuple[int, int]):
    assert FedoSSL().stages(rounds) == expected
    assert FedoSSL(warmup="off").stages(rounds) == (0, 0)
    assert FedoSSL(warmup="released").stages(rounds) == (5, 7)


def test_terms_begin_with_their_stage(client: MakeClient):
    def terms(round_: int) -> set[str]:
        _, _, update, _ = train(make("fedossl"), client(6, 12), centroids=True, round_=round_, rounds=20)
        return {name for name in update.metrics if name in ("loss_cluster", "loss_centroid", "loss_uncertainty")}

    assert terms(2) == {"loss_uncertainty"}
    assert terms(3) == {"loss_uncertainty", "loss_cluster"}
    assert terms(4) == {"loss_uncertainty", "loss_cluster", "loss_centroid"}


@pytest.mark.parametrize("held", [(0, 12), (12, 0), (1, 1), (2, 0), (1, 12)])
def test_edge_clients_train(held: tuple[int, int], client: MakeClient):
    data = client(*held)
    _, model, update, _ = train(make("fedossl", centroid_threshold=1.0), data, centroids=True, round_=9)
    assert all(torch.isfinite(t).all() for t in update.state.values())
    assert update.num_examples == sum(held)
    found = CALIBRATIONS.create({"name": "centroid"}).summarise(model, data, Rng(0, 9, 1))
    assert len(found["local_centroids"]) == min(16, sum(held))
    assert torch.allclose(found["local_centroids"].norm(dim=1), torch.ones(len(found["local_centroids"])), atol=1e-5)
    assert ("class_ids" in found) == (held[0] > 0)


def test_rounds_of_one_client_that_keeps_its_momentum_are_one_long_training(client: MakeClient):
    data, options = client(6, 12), {"optimizer_state": "keep", "schedule": "constant"}
    _, model, whole, _ = train(make("orca", **{**options, "epochs": 4}), data)
    method = make("orca", **options)
    server, memory = method.init_server(make_model(), None, Rng(0), 1), {}
    for round_ in (1, 2):
        step = Step("train", round_, 2, "train", Rng(0, round_, data.client_id))
        update, memory = method.train_client(model, method.downlink(server, 1, step), memory, data, step)
        server = ServerState({**server.model, **update.state}, server.extra)
    assert all(torch.equal(server.model[name], tensor) for name, tensor in whole.state.items())


def test_a_loss_that_is_not_finite_leaves_the_client_out(client: MakeClient, monkeypatch: pytest.MonkeyPatch):
    from fedssl.methods import orca

    monkeypatch.setattr(orca, "pairwise_loss", lambda p, _: p.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="4 of 4 steps"):
        train(make("orca"), client(6, 6))


def test_the_learning_rate_falls_at_seven_and_nine_tenths(client: MakeClient):
    from fedssl.models.frozen import CutNetwork

    method, split = make("orca"), CutNetwork(make_model(), 0)

    def rate(round_: int) -> float:
        step = Step("train", round_, 10, "train", Rng(0))
        return float(method.optimizer(split, {}, step).param_groups[0]["lr"])

    assert [rate(r) for r in (1, 7, 8, 9, 10)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_kept_views_are_those_made_anew(client: MakeClient, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path))
    from fedssl.models.frozen import CutNetwork, trunk_layers

    data, method = client(6, 12), make("orca", cache_views=2)
    model = make_model()
    split = CutNetwork(model, trunk_layers(model))
    maps = method.maps(split, data, Step("train", 1, 1, "train", Rng(0, 1, 1)))
    keys = [Rng(0).key("kept views", view) for view in range(2)]
    # In the batch that they were made in: the last bits may depend on it.
    index = np.arange(len(data.dataset.train))
    model.eval()
    assert torch.equal(maps(0, index), split.trunk(data.plain(index)))
    for view, key in enumerate(keys, 1):
        assert torch.equal(maps(view, index), split.trunk(data.weak(index, key)))
    assert isinstance(train(method, data)[2], Update)


def test_damaged_kept_views_are_made_again(client: MakeClient, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path))
    from fedssl.models import feature_cache, frozen

    data, split = client(6, 12), frozen.CutNetwork(make_model(), frozen.trunk_layers(make_model()))
    good = feature_cache.cached_maps(split, data, [5])(1, data.unlabelled)
    (file,) = tmp_path.glob("maps-*/maps.npy")
    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        file.write_bytes(damaged)
        feature_cache._open.cache_clear()
        assert torch.equal(feature_cache.cached_maps(split, data, [5])(1, data.unlabelled), good)
        assert file.read_bytes() == whole


def test_a_skipped_step_leaves_batch_norm_as_it_was(client: MakeClient, monkeypatch: pytest.MonkeyPatch):
    from fedssl.methods import orca

    real, calls = orca.pairwise_loss, []

    def once(p: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return real(p, partner) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(orca, "pairwise_loss", once)
    _, _, update, _ = train(make("orca", epochs=6), client(6, 6))
    assert len(calls) == 12
    assert update.metrics["skipped_steps"] == (1.0, 12.0)
    assert all(torch.isfinite(tensor).all() for tensor in update.state.values())


@pytest.mark.parametrize("options", [{"cache_views": 1}, {"cache_views": 2, "train": "all"}])
def test_views_that_cannot_be_kept_are_refused(options: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"method\.cache_views"):
        make("orca", **options)


def test_features_by_batch_statistics_leave_the_buffers(client: MakeClient):
    from fedssl.models.feature_cache import plain_features
    from fedssl.models.frozen import CutNetwork, trunk_layers

    model, data = make_model(), client(6, 12)
    split, before = CutNetwork(model, trunk_layers(model)), {k: t.clone() for k, t in model.state_dict().items()}
    running = plain_features(split, data, data.unlabelled, None).features
    batch = plain_features(split, data, data.unlabelled, None, batch_norm="batch").features
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(running, batch)
    model.train()
    split.train(trunk=False)
    assert torch.allclose(split.top(split.trunk(data.plain(data.unlabelled))).features, batch)
