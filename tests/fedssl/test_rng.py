"""Tests of fedssl.rng."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from fedssl.rng import Rng


def test_equal_places_give_equal_streams_whatever_ran_before():
    first = Rng(7, 2, 3).numpy("order", 1).random(5)
    Rng(7, 2, 3).numpy("order", 1).random(100)
    Rng(7, 2, 3).torch("order").initial_seed()
    np.testing.assert_array_equal(first, Rng(7).at(round_=2, client=3).numpy("order", 1).random(5))


def test_every_part_of_a_place_counts():
    places = itertools.product((0, 1), (0, 1), (-1, 0, 1), ("a", "b"), (0, 1))
    keys = [Rng(seed, round_, client).key(purpose, epoch) for seed, round_, client, purpose, epoch in places]
    assert len(set(keys)) == len(keys) == 48


def test_a_key_is_the_same_on_every_machine():
    # blake2b-64 of the text "3/views/1/2/0", little-endian.
    assert Rng(3, 1, 2).key("views") == 5567525394601194152


def test_torch_streams_do_not_touch_the_global_generator():
    before = torch.get_rng_state()
    drawn = torch.rand(3, generator=Rng(1).torch("weights"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(3, generator=Rng(1).torch("weights")))
    assert not torch.equal(drawn, torch.rand(3, generator=Rng(2).torch("weights")))
