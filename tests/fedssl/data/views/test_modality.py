"""Tests of fedssl.data.views.modality, and of views of windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views import augment, modality, motion
from fedssl.data.views.client_data import ClientData

MEAN, STD = (1.0, 10.0), (2.0, 5.0)


def test_windows_become_bounded_channels_first_input():
    x = torch.tensor([[[1.0, 10.0], [5.0, 2.5], [0.0, 20.0]]])
    bounded = modality.model_input(x, MEAN, STD, 1.0)
    assert bounded.tolist() == [[[0.0, 1.0, -0.5], [0.0, -1.0, 1.0]]]
    assert modality.model_input(x, MEAN, STD).tolist() == [[[0.0, 2.0, -0.5], [0.0, -1.5, 2.0]]]
    assert bounded.is_contiguous()
    assert x[0, 1, 0] == 5


def test_pictures_are_normalised_as_ever():
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 2), np.uint8))
    made = modality.model_input(x, (0.5, 0.4), (0.2, 0.3), 0.0)
    assert torch.equal(made, augment.normalise(x, (0.5, 0.4), (0.2, 0.3)))
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_bounded_gaussian_input_has_the_variance_of_a_clipped_ninth():
    x = torch.from_numpy(np.random.default_rng(0).normal(4, 2, (20000, 30, 1)).astype(np.float32))
    made = modality.model_input(x, (4.0,), (6.0,), 1.0)
    assert made.var().item() == pytest.approx(0.1105, abs=1e-3)
    assert made.abs().max() == 1


def test_deviations_undo_the_bound():
    assert modality.deviations((6.0, 3.0), 1.0) == (2.0, 1.0)
    assert modality.deviations((6.0, 3.0), 2.0) == (4.0, 2.0)
    assert modality.deviations((6.0, 3.0), 0.0) == (6.0, 3.0)
    assert modality.holds_windows((30, 3))
    assert not modality.holds_windows((30, 30, 3))


@pytest.fixture
def data() -> ClientData:
    x = np.random.default_rng(0).normal(2, 3, (40, 12, 3)).astype(np.float32)
    x.setflags(write=False)  # as memory maps are
    samples = Samples(x, np.arange(40) % 2, np.full(40, -1))
    dataset = Dataset("windows", samples, samples, ("a", "b"), (2.0,) * 3, (9.0,) * 3, "key", limit=1.0)
    indices = Indices(np.arange(30), np.zeros(0, np.int64), np.arange(30, 40), np.arange(5))
    return ClientData(0, dataset, indices, samples.y, False, torch.device("cpu"))


def test_a_client_sees_windows_through_the_same_methods(data):
    x = torch.from_numpy(np.array(data.dataset.train.x))
    index = np.array([3, 9])
    expected = ((x[index] - 2) / 9).clamp(-1, 1).transpose(1, 2)
    assert torch.equal(data.plain(index), expected)
    assert torch.equal(data.validation()[0], ((x[30:] - 2) / 9).clamp(-1, 1).transpose(1, 2))
    assert data.test()[0].shape == (5, 3, 12)
    assert data.test()[1].tolist() == [0, 1, 0, 1, 0]


def test_views_are_motion_in_units_of_the_true_deviation(data):
    index = np.array([3, 9])
    x = np.array(data.dataset.train.x[index])
    for name, view in (("weak", data.weak), ("strong", data.strong)):
        changed = torch.from_numpy(getattr(motion, name)(x, index, 5, (3.0,) * 3))
        assert torch.equal(view(index, 5), ((changed - 2) / 9).clamp(-1, 1).transpose(1, 2))
        assert not torch.equal(view(index, 5), data.plain(index))


def test_windows_made_together_have_the_bits_of_windows_made_apart(data):
    parts = [np.array([3, 1, 4]), np.array([9]), np.arange(20)]
    for i, (part, x) in enumerate(zip(parts, data.weak_batches(parts, 7), strict=True)):
        assert torch.equal(x, data.weak(part, 7 + i))
