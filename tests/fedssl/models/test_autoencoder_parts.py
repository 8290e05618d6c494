from __future__ import annotations

import pytest
import torch
from autoencoders import network, parts, windows

from fedssl.models.autoencoder import encode, load_autoencoder


def test_loading_needs_every_tensor_of_the_autoencoder_and_no_other():
    model, state = network(), parts(network(1))
    head = {name: t.clone() for name, t in model.state_dict().items() if name.startswith("head.")}
    load_autoencoder(model, state)
    assert all(tensor.equal(state[name]) for name, tensor in parts(model).items())
    assert all(tensor.equal(model.state_dict()[name]) for name, tensor in head.items())
    for wrong in ({**state, "head.x": torch.zeros(1)}, dict(list(state.items())[1:])):
        with pytest.raises(ValueError, match="missing or too many"):
            load_autoencoder(model, wrong)


def test_codes_and_errors_are_the_networks_own():
    model, x = network().eval(), windows(5)
    code, error = encode(model, x)
    torch.testing.assert_close(code, model(x).features)
    torch.testing.assert_close(error, model.reconstruction_error(x))
    assert not code.requires_grad
