from __future__ import annotations

import numpy as np
import torch

from fedssl.training.steps import parts_of, snapshot


def test_a_snapshot_does_not_follow_the_model():
    model = torch.nn.Linear(1, 1)
    before, taken = model.weight.item(), snapshot(model)
    with torch.no_grad():
        model.weight += 1
    assert taken["weight"].item() == before


def test_a_last_batch_of_one_is_dropped():
    assert [part.tolist() for part in parts_of(np.arange(5), 2)] == [[0, 1], [2, 3]]
    assert [part.tolist() for part in parts_of(np.arange(6), 4)] == [[0, 1, 2, 3], [4, 5]]
    assert parts_of(np.arange(1), 4) == []
