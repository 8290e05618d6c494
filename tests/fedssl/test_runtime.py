"""Which device a run takes; networks run in bfloat16, and nothing around them does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from fedssl import runtime
from fedssl.config import ConfigError
from fedssl.models.base import MODELS, Outputs
from fedssl.models.build import build_model
from fedssl.models.frozen import CutNetwork
from fedssl.rng import Rng
from fedssl.runtime import precision_of, use_precision


def network(name: str = "resnet", **options: Any) -> nn.Module:
    return build_model(MODELS.create({"name": name, **options}), (8, 8, 1), 3, Rng(0).torch("initial weights"))


def images(count: int = 16) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def loss_of(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(images()).logits, torch.arange(16) % 3)


def trained(model: nn.Module, steps: int) -> list[float]:
    """Take SGD steps; give the loss before each."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1, fused=True), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_steps_in_bf16_follow_the_loss_in_fp32():
    half, single = network(width=4), network(width=4)
    use_precision(half, "bf16")
    found, expected = trained(half, 8), trained(single, 8)
    assert expected[-1] < 0.7 * expected[0]
    assert found == pytest.approx(expected, rel=0.15)


def test_a_forward_pass_uses_the_weights_of_its_own_step():
    model = network("mlp", hidden=8, layers=1)
    use_precision(model, "bf16")
    for _ in range(3):
        trained(model, 1)
        fresh = network("mlp", hidden=8, layers=1)
        fresh.load_state_dict(model.state_dict())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = fresh(images()).logits.float()
        assert torch.equal(model(images()).logits, expected)


@pytest.mark.parametrize("part", ["model", "backbone", "head"])
def test_what_is_called_from_outside_computes_in_bf16_and_returns_float32(part: str):
    model, single = network(width=4), network(width=4)
    use_precision(model, "bf16")
    x = images() if part != "head" else single.get_submodule("backbone")(images()).detach()
    one, other = (net if part == "model" else net.get_submodule(part) for net in (model, single))
    made, exact = one(x), other(x)
    made, exact = (made.logits, exact.logits) if part == "model" else (made, exact)
    assert made.dtype == torch.float32
    assert not torch.equal(made, exact)
    assert torch.equal(made, made.bfloat16().float())
    assert float((made - exact).detach().abs().mean()) < 0.02
    assert not torch.is_autocast_enabled("cpu")


def test_a_copy_runs_at_the_precision_of_its_original_on_its_own_weights():
    model = network("mlp", hidden=8, layers=1)
    use_precision(model, "bf16")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert precision_of(twin) == "bf16"
    assert not twin(images()).logits.any()
    assert model(images()).logits.any()


def test_a_network_cut_in_two_runs_both_parts_in_bf16():
    model = network(width=4)
    use_precision(model, "bf16")
    split = CutNetwork(model, model.trunk_layers)  # type: ignore[arg-type]
    maps = split.trunk(images())
    assert maps.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in split.top(maps)} == {torch.float32}
    assert torch.equal(split.top(maps).logits, model(images()).logits)


def test_fp32_again_is_fp32():
    model, single = network(width=4), network(width=4)
    for name in ("bf16", "fp32", "bf16", "fp32"):
        use_precision(model, name)
    assert torch.equal(model(images()).logits, single(images()).logits)


def test_a_pass_that_fails_leaves_no_autocast_behind():
    model = network("mlp", hidden=8, layers=1)
    use_precision(model, "bf16")
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 5))
    assert not torch.is_autocast_enabled("cpu")
    assert isinstance(model(images()), Outputs)


@pytest.fixture
def announced(monkeypatch):
    """Let torch announce exactly these devices, which all work unless a test says otherwise."""

    def announce(*names, failure=""):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)
        monkeypatch.setattr(runtime, "_failure", lambda name: failure if name != "cpu" else "")

    return announce


@pytest.mark.parametrize("name", ["cuda", "mps", "cuda:7", "nonsense"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(announced, name):
    announced()
    with pytest.raises(ConfigError, match=rf"^device='{name}': must be auto or cpu on this machine") as refused:
        runtime.choose_device(name)
    assert refused.value.field == "device"
    announced("mps")
    with pytest.raises(ConfigError, match="must be auto or mps or cpu on this machine"):
        runtime.choose_device("cuda")


def test_auto_takes_the_fastest_device_that_is_here(announced):
    for names, wanted in (((), "cpu"), (("mps",), "mps"), (("mps", "cuda"), "cuda")):
        announced(*names)
        assert runtime.choose_device("auto") == torch.device(wanted)
    assert runtime.choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_a_device_that_fails_at_once_is_refused(announced, name):
    announced("cuda", failure="the driver is too old")
    with pytest.raises(
        ConfigError, match=rf"device='{name}': must be cpu .*cuda cannot be used \(the driver is too old"
    ):
        runtime.choose_device(name)


def test_a_first_tensor_finds_what_does_not_work():
    assert runtime._failure.__wrapped__("cpu") == ""
    if not torch.cuda.is_available():
        reason = runtime._failure.__wrapped__("cuda")
        assert reason
        assert "\n" not in reason
