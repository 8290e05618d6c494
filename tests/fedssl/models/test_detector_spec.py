from __future__ import annotations

import math

import pytest
import torch

from fedssl.config import ConfigError
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.models.detection.anchors import coco_anchors
from fedssl.rng import Rng


def build(shape=(64, 64, 3), seed=0, **options):
    return build_model(MODELS.create({"name": "detector", **options}), shape, 4, Rng(seed).torch("init"))


def test_the_default_is_pico_in_channels_last():
    model = build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 424_865
    assert model.backbone.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.trunk_layers == 0


def test_the_head_starts_with_few_objects_and_cocos_anchors():
    head = build((128, 128, 3)).head
    for conv, stride in zip(head.convs, (8, 16, 32), strict=True):
        bias = conv.bias.view(3, 9)
        torch.testing.assert_close(bias[:, 4], torch.full((3,), math.log(8 / (640 / stride) ** 2)))
        torch.testing.assert_close(bias[:, 5:], torch.full((3, 4), math.log(0.6 / 3.01)))
    assert torch.equal(head.anchors, coco_anchors(128))


def test_weights_come_from_the_generator():
    first, again, other = build().state_dict(), build().state_dict(), build(seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.convs.0.weight"], other["head.convs.0.weight"])


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 96, 3), (80, 80, 3), (64, 64, 1), (1312, 1312, 3), (90, 9)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ConfigError, match="square colour pictures whose side is a multiple of 32 from 64 to 1280"):
        build(shape)


def test_four_depths_are_asked_for():
    with pytest.raises(ConfigError, match=r"model\.depths.*a list of 4 depths"):
        build(depths=[1, 1, 1])
    with pytest.raises(ConfigError, match=r"model\.depths"):
        build(depths=[1, 0, 1, 1])
