from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from fedssl.config import ConfigError
from fedssl.files import sha256_of
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.models.weights import load_backbone
from fedssl.rng import Rng


def build(seed, **options):
    choice = {"name": "resnet", "width": 2, **options}
    return build_model(MODELS.create(choice), (8, 8, 1), 5, Rng(seed).torch("init"))


def backbone(model):
    state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file({**backbone(build(0)), "projector.0.weight": torch.zeros(3)}, file)
    return str(file)


def test_backbone_is_replaced_and_the_head_stays(path):
    model = build(1)
    head = model.head.weight.clone()
    load_backbone(model, path, sha256_of(path))
    expected = backbone(build(0))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone(model).items())
    assert torch.equal(model.head.weight, head)
    assert model.backbone[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("backbone.0.weight"), r"backbone\.0\.weight is missing"),
        (lambda t: t.update({"backbone.x": torch.zeros(1)}), r"backbone\.x is too much"),
        (
            lambda t: t.update({"backbone.0.weight": torch.zeros(4, 1, 3, 3)}),
            r"backbone\.0\.weight has shape \(4, 1, 3, 3\), not \(2, 1, 3, 3\)",
        ),
    ],
)
@pytest.mark.parametrize("meta", [False, True])
def test_what_does_not_fit_is_one_line_that_names_the_tensor(tmp_path, change, message, meta):
    tensors = backbone(build(0))
    change(tensors)
    save_file(tensors, tmp_path / "w")
    model = build(1).to("meta") if meta else build(1)
    with pytest.raises(ConfigError, match=message) as caught:
        load_backbone(model, str(tmp_path / "w"))
    assert caught.value.field == "model.weights"
    assert "\n" not in str(caught.value)


def test_missing_damaged_changed_and_unmade_files_are_refused(tmp_path, path):
    with pytest.raises(ConfigError, match="No such file"):
        load_backbone(build(1), str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="the file that the run began with"):
        load_backbone(build(1), path, "0" * 64)
    (tmp_path / "text").write_text("not tensors at all")
    with pytest.raises(ConfigError, match="a safetensors file that can be read here"):
        load_backbone(build(1), str(tmp_path / "text"))
    with pytest.raises(ConfigError, match="only `fedssl run`"):
        load_backbone(build(1), "auto")


def test_a_fitting_file_passes_for_a_network_without_memory(path):
    network = build(1).to("meta")
    load_backbone(network, path)
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    with pytest.raises(ConfigError, match="has shape"):
        load_backbone(build(1, width=3).to("meta"), path)
