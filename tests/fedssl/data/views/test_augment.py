from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.data.views import augment

SHAPES = ((28, 28, 1), (32, 32, 3), (8, 8, 1), (96, 40, 3))
VIEWS = (augment.weak, augment.strong)


def images(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    pixels = np.random.default_rng(3).integers(0, 256, (count, *shape), dtype=np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("view", VIEWS)
def test_view_has_the_same_bits_in_any_batch_and_order(view, shape):
    x, index = images(300, shape), np.arange(1000, 1300)
    whole = view(x, index, 77, flip=True)
    order = np.random.default_rng(0).permutation(300)
    assert torch.equal(view(x[order], index[order], 77, flip=True), whole[order])
    for rows in (slice(0, 1), slice(5, 12), slice(17, 290)):
        assert torch.equal(view(x[rows], index[rows], 77, flip=True), whole[rows])


@pytest.mark.parametrize("view", VIEWS)
def test_view_keeps_its_input_and_depends_on_key_and_index(view):
    x = images(1, (28, 28, 1)).expand(50, -1, -1, -1).contiguous()
    before = x.clone()
    first = view(x, np.arange(50), 1, flip=True)
    assert torch.equal(x, before)
    assert first.shape == x.shape
    assert first.dtype == torch.uint8
    assert len(torch.unique(first, dim=0)) > 35
    assert not torch.equal(first, view(x, np.arange(50), 2, flip=True))
    assert torch.equal(first, view(x, np.arange(50), 1, flip=True))


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_batch_gives_an_empty_view(view):
    assert view(images(0, (8, 8, 3)), np.zeros(0, np.int64), 1, flip=True).shape == (0, 8, 8, 3)


def test_weak_is_a_reflected_shift_and_half_are_mirrored():
    x = images(1, (16, 24, 3))[0].numpy()
    padded = np.pad(x, ((2, 2), (3, 3), (0, 0)), mode="reflect")
    allowed = {}
    for down in range(5):
        for right in range(7):
            cut = padded[down : down + 16, right : right + 24]
            allowed[cut.tobytes()] = False
            allowed[np.ascontiguousarray(cut[:, ::-1]).tobytes()] = True
    batch = torch.from_numpy(np.repeat(x[None], 2000, axis=0))
    seen = [view.numpy().tobytes() for view in augment.weak(batch, np.arange(2000), 5, flip=True)]
    assert set(seen) == set(allowed)
    assert 900 < sum(allowed[view] for view in seen) < 1100
    plain = augment.weak(batch, np.arange(2000), 5, flip=False).numpy()
    assert not any(allowed[view.tobytes()] for view in plain)


def test_cutout_is_a_grey_square_of_up_to_half_the_side():
    x = torch.full((500, 16, 20, 3), 9, dtype=torch.uint8).numpy()
    out = augment._cutout(x, augment.draws(np.arange(500), 4, 3))
    assert set(np.unique(out)) == {9, 127}
    heights = (out == 127).all(axis=3).any(axis=2).sum(axis=1)
    widths = (out == 127).all(axis=3).any(axis=1).sum(axis=1)
    areas = (out == 127).all(axis=3).sum(axis=(1, 2))
    assert heights.max() == widths.max() == 8
    np.testing.assert_array_equal(areas, heights * widths)


@pytest.mark.parametrize("shape", [(2, 8, 9, 1), (2, 8, 9, 3)])
def test_normalise_gives_channels_last_floats(shape):
    channels = shape[3]
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.5, 0.25, 0.125)[:channels]
    x = images(2, shape[1:])
    out = augment.normalise(x, mean, std)
    expected = (x.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    torch.testing.assert_close(out.double(), expected.permute(0, 3, 1, 2), rtol=0, atol=1e-6)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
