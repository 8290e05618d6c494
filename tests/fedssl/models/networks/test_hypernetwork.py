from __future__ import annotations

import pytest
import torch

from fedssl.models.base import MODELS
from fedssl.models.networks.hypernetwork import HyperNetwork, embedding_size, initialise
from fedssl.rng import Rng

SHAPES = {"b": torch.Size([2, 3]), "a": torch.Size([4]), "c": torch.Size([])}


def small(how="default", start=None, num_users=5):
    network = HyperNetwork(num_users, SHAPES, hidden=8, layers=1)
    initialise(network, Rng(0).torch("hyper"), how, start)
    return network


def autoencoder(channels, sizes):
    model = MODELS.create({"name": "autoencoder", "sizes": sizes}).build((30, channels), 18)
    return {name: t for name, t in model.state_dict().items() if not name.startswith("head.")}


@pytest.mark.parametrize(("num_users", "expected"), [(2, 1), (8, 3), (37, 10), (40, 11), (42, 11), (46, 12), (50, 13)])
def test_the_embedding_grows_with_a_quarter_of_the_users(num_users, expected):
    assert embedding_size(num_users) == expected


@pytest.mark.parametrize(
    ("channels", "sizes", "num_users", "hidden", "layers", "expected"),
    [
        (6, [256, 128, 64], 37, 100, 10, 17_786_762),
        (6, [64, 32, 16], 37, 32, 1, 943_862),
        (3, [64, 32, 16], 42, 32, 1, 560_856),
    ],
)
def test_a_hypernetwork_has_the_known_number_of_parameters(channels, sizes, num_users, hidden, layers, expected):
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in autoencoder(channels, sizes).items()}
        network = HyperNetwork(num_users, shapes, hidden, layers)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert network.output.out_features == sum(shape.numel() for shape in shapes.values())


def test_rows_hold_the_tensors_by_name_and_come_back_as_they_went():
    network = small()
    row = torch.arange(11.0)
    (state,) = network.rows_to_states(row[None])
    assert list(state) == ["a", "b", "c"]
    assert state["a"].tolist() == [0, 1, 2, 3]
    assert state["b"].tolist() == [[4, 5, 6], [7, 8, 9]]
    assert state["c"].item() == 10
    assert torch.equal(network.state_to_row({name: state[name] for name in "cba"}), row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("a"), "a is missing"),
        (lambda state: state.update(z=torch.zeros(1)), "z is not a generated tensor"),
        (lambda state: state.update(a=torch.zeros(5)), r"a has shape \(5,\), not \(4,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(change, message):
    network = small()
    (state,) = network.rows_to_states(torch.zeros(1, 11))
    change(state)
    with pytest.raises(ValueError, match=message):
        network.state_to_row(state)
    with pytest.raises(ValueError, match=r"not \(users, 11\)"):
        network.rows_to_states(torch.zeros(1, 10))


def test_without_weights_in_the_last_layer_each_user_gets_its_biases():
    network = small()
    torch.nn.init.zeros_(network.output.weight)
    rows = network.generate(torch.tensor([0, 3, 4]))
    assert torch.equal(rows, network.output.bias.detach().expand(3, -1))


def test_a_row_does_not_depend_on_who_else_is_asked_for():
    network = small()
    together = network.generate(torch.tensor([4, 1, 2]))
    assert torch.equal(together[1:2], network.generate(torch.tensor([1])))
    assert not torch.equal(together[0], together[1])
    torch.testing.assert_close(network(torch.tensor([4, 1, 2])).detach(), together)
    assert network.generate(torch.tensor([], dtype=torch.int64)).shape == (0, 11)


def test_centred_starts_at_the_given_tensors_with_a_tenth_of_the_default_weights():
    plain = small()
    (start,) = plain.rows_to_states(torch.arange(11.0)[None])
    centred = small("centred", start)
    assert torch.equal(centred.output.bias.detach(), torch.arange(11.0))
    assert torch.equal(centred.output.weight, 0.1 * plain.output.weight)
    assert torch.equal(centred.embedding.weight, plain.embedding.weight)
    bound = 8**-0.5
    assert bound * 0.8 < plain.output.weight.abs().max() <= bound
    with pytest.raises(ValueError, match="needs the tensors"):
        small("centred")
    with pytest.raises(ValueError, match="'other'"):
        small("other")


def test_a_network_over_a_state_is_that_state_not_a_copy():
    network = small()
    state = network.state_dict()
    again = HyperNetwork.over(state, SHAPES)
    assert again.output.weight.data_ptr() == network.output.weight.data_ptr()
    assert torch.equal(again.generate(torch.tensor([2])), network.generate(torch.tensor([2])))
    assert len(again.trunk) == 3
