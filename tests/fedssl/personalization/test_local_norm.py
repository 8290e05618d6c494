"""Tests of fedssl.personalization.local_norm: names by hand, and a run in which every client keeps its own."""

from __future__ import annotations

import pytest
import torch
import toys

from fedssl.config import ConfigError
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.personalization.base import PERSONALIZATIONS
from fedssl.personalization.local_norm import LocalNorm
from fedssl.rng import Rng


def test_batch_norm_is_kept_by_its_kind_and_not_by_its_name():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.GroupNorm(1, 2))
    hook = PERSONALIZATIONS.create({"name": "local_norm"})
    assert not hook.keeps("1.weight")
    hook.prepare(model)
    assert {name for name in model.state_dict() if hook.keeps(name)} == {
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    }


@pytest.mark.parametrize(("name", "shape"), [("resnet", (16, 16, 3)), ("detector", (64, 64, 3))])
def test_what_stays_is_all_of_the_networks_statistics(name: str, shape: tuple[int, ...]):
    model = build_model(MODELS.create({"name": name, "width": 2}), shape, 3, Rng(0).torch("weights"))
    hook = LocalNorm()
    hook.prepare(model)
    state = model.state_dict()
    assert {n for n in state if "running" in n or "tracked" in n} <= {n for n in state if hook.keeps(n)}
    assert all(hook.keeps(n) == ("conv" not in n) for n in state if n.startswith("backbone.") and "norm" in n)
    assert not any(hook.keeps(n) for n in state if n.startswith("head."))


def test_a_network_without_batch_norm_is_refused():
    with pytest.raises(ConfigError, match=r"^personalization='local_norm': must be another one: Linear as configured"):
        LocalNorm().prepare(torch.nn.Linear(1, 1))


def test_what_a_client_keeps_never_leaves_and_differs():
    chosen = toys.experiment(
        method={"name": "fedavg", "batch_size": 8},
        model={"name": "resnet", "width": 2},
        personalization={"name": "local_norm"},
        clients=2,
        rounds=2,
    )
    from server.app import ServerRun
    from server.watcher import Silence

    made = ServerRun(chosen, Silence())
    kept = {name for name in made.model.state_dict() if made.parts.personalization.keeps(name)}
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    with toys.grid(2) as nodes:
        made.start(nodes, resume=False)
        memories = nodes.memories()
    after = made.strategy.server.model
    assert kept
    # The server trains nothing here: its batch norm is the first one, all else was averaged.
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert not torch.equal(after["head.weight"], before["head.weight"])
    own = [{name.removeprefix("kept."): t for name, t in memories[client].items()} for client in (0, 1)]
    assert own[0].keys() == own[1].keys() == kept
    assert any(not torch.equal(own[0][name], own[1][name]) for name in kept)
