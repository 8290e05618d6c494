from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedssl.config import ConfigError
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.rng import Rng
from fedssl.tasks.base import TASKS


@pytest.fixture
def task():
    return TASKS.create({"name": "classification"})


def test_prediction_leaves_buffers_and_modes_as_they_were(task):
    model = build_model(MODELS.create({"name": "resnet", "width": 2}), (8, 8, 1), 3, Rng(0).torch("i"))
    model.train()
    model.backbone[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.arange(5 * 64, dtype=torch.float32).reshape(5, 1, 8, 8) / 100
    logits = task.predict(model, x.split(2))
    assert model.training
    assert not model.backbone[1].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert logits.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(logits, model.eval()(x).logits.numpy(), rtol=1e-5, atol=1e-6)


def test_no_batches_score_nan(task):
    scores = task.score(task.predict(torch.nn.Identity(), []), np.zeros(0, np.int64), np.zeros(0, np.int8))
    assert sorted(scores) == ["accuracy", "brier", "ece", "loss", "macro_f1"]
    assert all(math.isnan(value) for value in scores.values())


def test_unknown_truth_is_left_out(task):
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    assert task.score(logits, np.array([0, -1, 1]), np.zeros(2, np.int8))[task.main_metric] == 0.5


def test_an_unknown_task_is_refused_with_the_nearest_spelling():
    with pytest.raises(ConfigError, match="did you mean classification"):
        TASKS.create({"name": "clasification"})
