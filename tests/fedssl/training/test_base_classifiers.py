from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views.client_data import ClientData
from fedssl.losses.supervised import cross_entropy
from fedssl.models.autoencoder import PARTS, encode, load_autoencoder
from fedssl.models.base import MODELS
from fedssl.models.build import build_model, initialise
from fedssl.rng import Rng
from fedssl.training.base_classifiers import PASSED, SIZES, TOTALS, WIDENED, BaseModels, filter_facts, kept_shares

MAKER = BaseModels("none", 0.05, epochs=2, lr=1e-2, batch_size=8)
DOMAIN = torch.arange(40) % 2
RNG = Rng(0, round_=3)


def server() -> ClientData:
    rng = np.random.default_rng(0)
    y = np.arange(40) // 2 % 2
    x = (rng.normal(0, 0.3, (40, 8, 2)) + y[:, None, None]).astype(np.float32)
    samples = Samples(x, y, np.full(40, -1))
    dataset = Dataset("two", samples, samples, ("a", "b"), (0.5, 0.5), (1.0, 1.0), "key")
    return ClientData(-1, dataset, Indices(np.arange(40), np.zeros(0, np.int64)), y, False, torch.device("cpu"))


def network(seed: int = 0) -> torch.nn.Module:
    spec = MODELS.create({"name": "autoencoder", "sizes": [8, 4], "hidden": 6})
    return build_model(spec, (8, 2), 2, Rng(seed).torch("weights"))


def trained(*users: int) -> dict[int, dict[str, torch.Tensor]]:
    found = {user: network(user).state_dict() for user in users}
    return {user: {k: t.clone() for k, t in state.items() if k.startswith(PARTS)} for user, state in found.items()}


def test_a_base_model_is_what_torch_would_train_alone():
    """Cross-entropy on frozen codes, a fresh Adam, batches in the user's own order, first weights of (run, domain)."""
    found = MAKER.train(network(), server(), DOMAIN, trained(7), {}, RNG)[7]
    model, data = network(), server()
    load_autoencoder(model, trained(7)[7])
    codes, _ = encode(model, data.plain(data.labelled))
    index = (DOMAIN == 1).nonzero().flatten()
    head, y = model.head, data.labels(data.labelled)[index]
    initialise(head, Rng(0).torch("base model", 1))
    head.train()
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for epoch in range(2):
        order = torch.from_numpy(RNG.at(client=7).numpy("base model 1", epoch).permutation(20))
        for batch in order.split(8):
            optimizer.zero_grad()
            cross_entropy(head(codes[index][batch]), y[batch]).backward()
            optimizer.step()
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(found[f"1.{name}"], tensor, rtol=1e-4, atol=1e-5)


def test_sizes_tell_what_was_kept():
    data, model = server(), network()
    load_autoencoder(model, trained(7)[7])
    _, error = encode(model, data.plain(data.labelled))
    tau = float(error.quantile(0.6))
    found = replace(MAKER, filter="sample", tau=tau).train(network(), data, DOMAIN, trained(7), {}, RNG)[7]
    assert found[SIZES].tolist() == [int((error[m == DOMAIN] <= tau).sum()) for m in (0, 1)]
    assert found[PASSED].tolist() == found[SIZES].tolist()
    assert found[TOTALS].tolist() == [20, 20]
    assert found[WIDENED].tolist() == [0]


def test_a_wider_filter_does_not_count_as_passing():
    found = replace(MAKER, filter="sample", tau=0.0).train(network(), server(), DOMAIN, trained(7), {}, RNG)[7]
    assert found[PASSED].tolist() == [0, 0]
    assert int(found[SIZES].sum()) == 20  # half of all windows have at most the median error
    assert filter_facts(found) == {"kept_0": 0.0, "kept_1": 0.0, "fallback": 1.0}
    assert kept_shares([found]) == {"kept_0": 0.0, "kept_1": 0.0, "fallbacks": 1.0}


def test_batches_that_pass_are_those_kept():
    data, model = server(), network()
    load_autoencoder(model, trained(7)[7])
    tau = float(encode(model, data.plain(data.labelled))[1].median())
    maker = replace(MAKER, filter="batch", tau=tau, batch_size=4)
    found = maker.train(network(), data, DOMAIN, trained(7), {}, RNG)[7]
    assert found[WIDENED].tolist() == [0]
    assert found[PASSED].tolist() == found[SIZES].tolist()
    assert 0 < int(found[PASSED].sum()) < 40


def test_many_users_at_once_are_each_as_if_alone():
    users = list(range(11))
    together = MAKER.train(network(), server(), DOMAIN, trained(*users), {}, RNG)
    for user in (0, 7, 8, 10):
        alone = MAKER.train(network(), server(), DOMAIN, trained(user), {}, RNG)[user]
        assert together[user].keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(together[user][name], tensor, rtol=1e-4, atol=1e-5)


def test_a_domain_without_two_classes_has_no_model():
    data = server()
    domain = torch.from_numpy(data.dataset.train.y * 0 + (np.arange(40) >= 38))
    found = MAKER.train(network(), data, domain, trained(1), {}, RNG)[1]
    assert found[SIZES].tolist() == [38, 0]
    assert found[PASSED].tolist() == [38, 2]
    assert filter_facts(found) == {"kept_0": 1.0, "kept_1": 1.0, "fallback": 0.0}
    assert not [name for name in found if name.startswith("1.")]


@pytest.mark.parametrize("known", [True, False])
def test_training_goes_on_from_the_users_last_models(known: bool):
    first = MAKER.train(network(), server(), DOMAIN, trained(1), {}, RNG)[1]
    last = {1: first} if known else {2: first}
    found = MAKER.train(network(), server(), DOMAIN, trained(1), last, RNG)[1]
    assert int(found["0.norm1.num_batches_tracked"]) == 6 * (1 + known)
    assert found["0.dense.weight"].equal(first["0.dense.weight"]) == (not known)
