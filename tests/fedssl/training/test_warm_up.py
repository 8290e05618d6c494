"""Tests of fedssl.training.warm_up: trained once, and the same bits whoever reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedssl.config import ConfigError
from fedssl.data.views.client_data import ClientData
from fedssl.federation import ServerState
from fedssl.methods.fedsto import FedSTO
from fedssl.methods.ssfl import SSFL
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng
from fedssl.training.warm_up import _source, cached, code_of, read_weights

MakeClient = Callable[..., ClientData]
OPTIONS = {"warm_up": 1, "batch_size": 4}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDSSL_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def data(client: MakeClient) -> ClientData:
    return replace(client(6, 0, detecting=True), client_id=-1)


def network(seed: int = 0) -> torch.nn.Module:
    spec = MODELS.create({"name": "detector", "width": 2})
    return build_model(spec, (64, 64, 3), 3, Rng(seed).torch("initial weights"))


def begun(chosen: SSFL, data: ClientData, seed: int = 0) -> ServerState:
    return chosen.init_server(network(seed), data, Rng(seed), 3)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("warm-up-*.safetensors")}


def same(one: ServerState, other: ServerState) -> bool:
    return all(
        list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in ((one.model, other.model), (one.extra, other.extra))
    )


def test_it_is_trained_once_for_all_methods(cache: Path, data: ClientData, monkeypatch: pytest.MonkeyPatch):
    first = begun(SSFL(**OPTIONS), data)
    assert len(files(cache)) == 1

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(SSFL, "supervise", fail)
    for chosen in (SSFL(**OPTIONS, labeller="global", tau2=0.9), FedSTO(**OPTIONS, orthogonal=0.5)):
        assert same(first, begun(chosen, data))
    with pytest.raises(AssertionError, match="trained again"):
        begun(SSFL(**OPTIONS, warm_up_weights=""), data)


def test_without_the_cache_the_bits_are_the_same(cache: Path, data: ClientData):
    assert same(begun(SSFL(**OPTIONS), data), begun(SSFL(**OPTIONS, warm_up_weights=""), data))
    assert len(files(cache)) == 1


@pytest.mark.parametrize(
    "change", [{"warm_up": 2}, {"lr": 0.02}, {"box_loss": "smooth_l1"}, {"anchors": "coco"}, {"seed": 1}, {"fewer": 1}]
)
def test_what_changes_it_has_a_file_of_its_own(change: dict[str, Any], cache: Path, data: ClientData):
    begun(SSFL(**OPTIONS), data)
    seed, fewer = change.pop("seed", 0), change.pop("fewer", 0)
    indices = replace(data.indices, labelled=data.labelled[fewer:])
    begun(SSFL(**{**OPTIONS, **change}), replace(data, indices=indices), seed)
    assert len(files(cache)) == 2


def test_a_damaged_file_is_made_anew(cache: Path, data: ClientData):
    first = begun(SSFL(**OPTIONS), data)
    (name,) = files(cache)
    (cache / name).write_bytes(b"damaged")
    assert same(first, begun(SSFL(**OPTIONS), data))


@dataclass
class Mine(SSFL):
    """A method of one's own."""

    heat: float = 0.0


def test_code_of_ones_own_has_a_file_of_its_own(cache: Path, data: ClientData):
    begun(SSFL(**OPTIONS), data)
    begun(Mine(**OPTIONS), data)
    assert len(files(cache)) == 2
    # Nobody knows which of its options its training uses.
    begun(Mine(**OPTIONS, heat=1.0), data)
    assert len(files(cache)) == 3
    assert code_of(SSFL) == code_of(FedSTO) == ""
    assert code_of(Mine) == f"{__name__}.Mine"


def test_changed_code_has_a_file_of_its_own(cache: Path, tmp_path: Path, data: ClientData, monkeypatch):
    begun(SSFL(**OPTIONS), data)
    package = tmp_path / "package"
    (package / "losses").mkdir(parents=True)
    (package / "losses" / "detection.py").write_text("A = 1\n")
    monkeypatch.setattr("fedssl.training.warm_up.PACKAGE", package)
    _source.cache_clear()
    begun(SSFL(**OPTIONS), data)
    begun(SSFL(**OPTIONS), data)
    assert len(files(cache)) == 2
    (package / "losses" / "detection.py").write_text("A = 2\n")
    _source.cache_clear()
    begun(SSFL(**OPTIONS), data)
    assert len(files(cache)) == 3
    _source.cache_clear()


def test_a_state_that_is_not_finite_is_not_kept(cache: Path):
    def make() -> ServerState:
        return ServerState({"w": torch.tensor([1.0, float("nan")])})

    assert torch.isnan(cached("made", make, torch.device("cpu")).model["w"][1])
    assert files(cache) == set()


@pytest.fixture
def given(tmp_path: Path) -> Path:
    save_file({name: t.contiguous() for name, t in network(7).state_dict().items()}, tmp_path / "given.safetensors")
    return tmp_path / "given.safetensors"


def test_without_epochs_a_file_of_weights_is_the_first_model(cache: Path, data: ClientData, given: Path):
    made = begun(SSFL(warm_up=0, batch_size=4, warm_up_weights=str(given)), data)
    wanted = network(7).state_dict()
    assert all(torch.equal(made.model[name], tensor) for name, tensor in wanted.items())
    assert files(cache) == set()


def test_the_warm_up_begins_with_a_file_of_weights(cache: Path, data: ClientData, given: Path):
    made = begun(SSFL(**OPTIONS, anchors="coco", warm_up_weights=str(given)), data)
    chosen, model = SSFL(**OPTIONS), network(7)
    chosen.supervise(model, data, Rng(0), 1, {}, ramp=chosen.warm_up_ramp)
    assert all(torch.equal(made.model[name], tensor) for name, tensor in model.state_dict().items())
    assert len(files(cache)) == 1


def test_a_head_for_other_classes_is_left_out_where_a_warm_up_follows(data: ClientData, tmp_path: Path):
    path = tmp_path / "other.safetensors"
    with torch.device("meta"):
        other = MODELS.create({"name": "detector", "width": 2}).build((64, 64, 3), 7).state_dict()
    tensors = {name: torch.full(tensor.shape, 0.5) for name, tensor in other.items()}
    save_file(tensors, path)
    mine = network(7).state_dict()
    found = read_weights(str(path), mine, whole=False)
    assert {name.partition(".")[0] for name in found} == {"backbone", "neck"}
    assert set(found) == {name for name in mine if not name.startswith("head.")}
    assert set(read_weights(str(path), other, whole=False)) == set(other) - {"head.anchors"}
    assert all(torch.equal(tensor, tensors[name].to(tensor)) for name, tensor in found.items())
    made = begun(SSFL(**OPTIONS, lr=1e-30, warm_up_weights=str(path)), data)
    assert torch.equal(made.model["neck.lateral5.conv.weight"], tensors["neck.lateral5.conv.weight"])
    assert torch.equal(made.model["head.convs.0.weight"], network(0).state_dict()["head.convs.0.weight"])
    assert torch.equal(made.model["head.anchors"], begun(SSFL(**OPTIONS), data).model["head.anchors"])
    with pytest.raises(ConfigError, match=r"must be all tensors of this model \(head\.convs\.0\.weight is missing"):
        SSFL(**{**OPTIONS, "warm_up": 0}, warm_up_weights=str(path)).check(network(0), data, 3)


def test_a_file_that_does_not_fit_is_refused(data: ClientData, tmp_path: Path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(ConfigError, match=r"^method\.warm_up_weights='.*: must be `auto`, empty or a safetensors file"):
        begun(SSFL(**OPTIONS, warm_up_weights=str(path)), data)
    with torch.device("meta"):
        shapes = MODELS.create({"name": "detector", "width": 2}).build((64, 64, 3), 3)
    with pytest.raises(ConfigError, match=r"^method\.warm_up_weights="):
        SSFL(**OPTIONS, warm_up_weights=str(path)).check(shapes, data, 3)
    save_file({"backbone.stem.conv.weight": torch.zeros(1)}, path)
    with pytest.raises(
        ConfigError, match=r"must be all tensors of this backbone \(backbone\.stem\.conv\.weight is missing"
    ):
        begun(SSFL(**OPTIONS, warm_up_weights=str(path)), data)
    deeper = {name: t.contiguous() for name, t in network(0).state_dict().items()}
    neck = "neck.down4.join.conv.weight"
    save_file({**deeper, neck: deeper[neck][:1].contiguous()}, path)
    with pytest.raises(
        ConfigError, match=r"must be all tensors of this neck \(neck\.down4\.join\.conv\.weight is missing"
    ):
        read_weights(str(path), deeper, whole=False)


@pytest.mark.parametrize("anchors", ["server", "coco"])
def test_anchors_go_by_the_data_where_a_warm_up_follows(anchors: str, data: ClientData, given: Path):
    wanted = begun(SSFL(**OPTIONS, anchors=anchors), data).model["head.anchors"]
    tensors = network(7).state_dict()
    tensors["head.anchors"] = tensors["head.anchors"] * 3
    save_file({name: t.contiguous() for name, t in tensors.items()}, given)
    for epochs, expected in ((1, wanted), (0, tensors["head.anchors"])):
        chosen = SSFL(warm_up=epochs, batch_size=4, anchors=anchors, warm_up_weights=str(given))
        assert torch.equal(begun(chosen, data).model["head.anchors"], expected)


def test_a_backbone_alone_is_enough_where_a_warm_up_follows(tmp_path: Path):
    path = tmp_path / "backbone.safetensors"
    mine = network(0).state_dict()
    save_file(
        {name: t.contiguous() for name, t in network(7).state_dict().items() if name.startswith("backbone.")}, path
    )
    found = read_weights(str(path), mine, whole=False)
    assert set(found) == {name for name in mine if name.startswith("backbone.")}
