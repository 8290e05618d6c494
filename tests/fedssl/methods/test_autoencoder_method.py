"""Tests of fedssl.methods.autoencoder on small windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedssl.config import ConfigError
from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views.client_data import ClientData
from fedssl.federation import Payload, ServerState, State, Step, Update
from fedssl.methods.autoencoder import FedAutoencoder
from fedssl.models.build import build_model
from fedssl.models.sensing import AutoencoderSpec
from fedssl.rng import Rng

STEPS, CHANNELS, CLASSES, NUM_TRAIN = 8, 3, 3, 30


@pytest.fixture
def windows() -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(NUM_TRAIN, dtype=np.int64) % CLASSES
    x = 0.2 * y[:, None, None] - 0.2 + 0.02 * rng.standard_normal((NUM_TRAIN, STEPS, CHANNELS))
    samples = Samples(x.astype(np.float32), y, np.full(NUM_TRAIN, -1, np.int64))
    return Dataset("windows", samples, samples, ("a", "b", "c"), (0.0,) * 3, (1.0,) * 3, "windows", limit=1.0)


def holder(dataset: Dataset, num_labelled: int, num_unlabelled: int) -> ClientData:
    index = np.arange(NUM_TRAIN, dtype=np.int64)
    held = Indices(index[:num_labelled], index[num_labelled : num_labelled + num_unlabelled])
    given = np.where(index < num_labelled, dataset.train.y, -1)
    return ClientData(1, dataset, held, given, False, torch.device("cpu"))


def network() -> torch.nn.Module:
    spec = AutoencoderSpec(sizes=[8, 4], hidden=5)
    return build_model(spec, (STEPS, CHANNELS), CLASSES, Rng(0).torch("initial weights"))


def step(round_: int = 1) -> Step:
    return Step("train", round_, 3, "train", Rng(0, round_, 1))


def answer(method: FedAutoencoder, data: ClientData) -> tuple[State, Update]:
    model = network()
    server = method.init_server(model, data, Rng(0), 2)
    update, _ = method.train_client(model, Payload(server.model), {}, data, step())
    return server.model, update


def changed(before: State, after: State) -> set[str]:
    return {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def test_clients_train_and_send_the_autoencoder_alone(windows: Dataset):
    method = FedAutoencoder(epochs=2, batch_size=8)
    before, update = answer(method, holder(windows, 5, 15))
    assert {name.split(".")[0] for name in update.state} == {"backbone", "decoder"}
    assert update.state.keys() == method.uplink(ServerState(before), Payload(before), step()).keys()
    assert changed(before, update.state) == {"backbone", "decoder"}
    # 20 windows, labelled or not, are 3 batches of at most 8.
    assert update.metrics["reconstruction"][1] == 2 * 3
    assert update.num_examples == 20


def test_the_reconstruction_error_falls(windows: Dataset):
    data, model = holder(windows, 0, 30), network()
    pool = data.unlabelled
    with torch.no_grad():
        before = float(model.reconstruction_error(data.plain(pool)).mean())  # type: ignore[operator]
    FedAutoencoder(epochs=60, lr=1e-2).train_autoencoder(model, data, pool, Rng(0))
    with torch.no_grad():
        after = float(model.reconstruction_error(data.plain(pool)).mean())  # type: ignore[operator]
    assert after < 0.2 * before


def test_one_step_is_the_gradient_of_the_mean_squared_error(windows: Dataset):
    method, data = FedAutoencoder(epochs=1, lr=1e-3), holder(windows, 10, 20)
    _, update = answer(method, data)
    model = network()
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if not n.startswith("head.")], lr=1e-3)
    x = data.plain(np.arange(NUM_TRAIN))
    made = model.decoder(model.backbone(x))  # type: ignore[operator]
    loss = (x - made).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for name, tensor in update.state.items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=2e-6)
    assert update.metrics["reconstruction"] == (pytest.approx(loss.item(), rel=1e-5), 1)


def test_a_clients_own_head_leaves_its_autoencoder_bit_for_bit(windows: Dataset):
    data = holder(windows, 6, 12)
    before, without = answer(FedAutoencoder(epochs=1), data)
    _, with_head = answer(FedAutoencoder(epochs=1, head="client", head_epochs=2, head_steps=7), data)
    assert changed(before, with_head.state) == {"backbone", "decoder", "head"}
    for name, tensor in without.state.items():
        assert torch.equal(tensor, with_head.state[name]), name
    # One batch an epoch; 7 steps are more than 2 epochs.
    assert with_head.metrics["head_loss"][1] == 7


@pytest.mark.parametrize("num_labelled", [0, 1])
def test_a_client_with_less_than_two_labels_leaves_the_head(windows: Dataset, num_labelled: int):
    before, update = answer(FedAutoencoder(epochs=1, head="client"), holder(windows, num_labelled, 12))
    assert changed(before, update.state) == {"backbone", "decoder"}
    assert update.metrics["head_loss"] == (0.0, 0.0)


def test_a_client_without_windows_sends_back_what_it_got(windows: Dataset):
    before, update = answer(FedAutoencoder(head="client"), holder(windows, 0, 0))
    assert changed(before, update.state) == set()
    assert (update.num_examples, update.metrics) == (0, {})


def test_the_server_trains_the_head_on_its_labels_and_nothing_else(windows: Dataset):
    method, data, model = FedAutoencoder(head_steps=150, head_lr=1e-2, batch_size=16), holder(windows, 30, 0), network()
    server = method.init_server(model, data, Rng(0), 2)
    after = method.train_server(server, model, data, [], step())
    assert changed(server.model, after.model) == {"head"}
    model.load_state_dict(after.model)
    model.eval()
    with torch.no_grad():
        found = model(data.plain(data.labelled)).logits.argmax(dim=1)
    assert (found == data.labels(data.labelled)).float().mean() > 0.9
    assert after.metrics["head_loss"] > 0
    assert server.metrics == {}


def test_the_server_leaves_the_head_to_clients(windows: Dataset):
    method, model = FedAutoencoder(head="client"), network()
    server = method.init_server(model, None, Rng(0), 2)
    assert method.train_server(server, model, None, [], step()) is server


def test_what_it_cannot_do_is_refused(windows: Dataset, client: Any):
    with pytest.raises(ConfigError, match=r"^method='autoencoder with head=server': must be one that needs no"):
        FedAutoencoder().check(network(), None, 2)
    with pytest.raises(ConfigError, match=r"^model='Linear': must be model=autoencoder for method=autoencoder$"):
        FedAutoencoder().check(torch.nn.Linear(1, 1), holder(windows, 30, 0), 2)
