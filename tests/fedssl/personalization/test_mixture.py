from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views.client_data import ClientData
from fedssl.losses.mixture import mixture_loss
from fedssl.models.base import MODELS
from fedssl.models.build import build_model, initialise
from fedssl.personalization.base import PERSONALIZATIONS
from fedssl.rng import Rng

MODES = ("weights", "finetune", "both", "last_layer", "uniform")
RNG = Rng(0, round_=3, client=5)


def client(num_labelled: int, *, pictures: bool = False, classes: int = 2) -> ClientData:
    """Give a client with 40 samples, the first labelled; pictures, or windows of 8 steps and 2 channels."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % classes
    if pictures:
        x = (rng.integers(0, 60, (40, 8, 8, 1)) + 150 * y[:, None, None, None]).astype(np.uint8)
    else:
        x = (rng.normal(0, 0.3, (40, 8, 2)) + y[:, None, None]).astype(np.float32)
    samples = Samples(x, y, np.full(40, -1))
    channels = 1 if pictures else 2
    dataset = Dataset("two", samples, samples, ("a", "b"), (0.4,) * channels, (0.5,) * channels, "key")
    labelled = np.arange(num_labelled)
    given = np.where(np.arange(40) < num_labelled, y, -1)
    indices = Indices(labelled, np.arange(num_labelled, 40), test=np.arange(40))
    return ClientData(5, dataset, indices, given, False, torch.device("cpu"))


def network(**choice: object) -> torch.nn.Module:
    shape = (8, 8, 1) if choice.get("name") == "resnet" else (8, 2)
    return build_model(MODELS.create(choice or {"name": "autoencoder", "sizes": [8, 4]}), shape, 2, Rng(0).torch("i"))


def heads(model: torch.nn.Module, count: int) -> dict[str, torch.nn.Module]:
    """Give heads with different weights and with running statistics of their own."""
    made = {}
    for m in range(count):
        head = network().head
        initialise(head, Rng(m).torch("head"))
        head.norm1.running_mean.fill_(0.1 * m)
        made[str(m)] = head
    return made


def states(modules: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    return {f"{m}.{k}": t.clone() for m, module in modules.items() for k, t in module.state_dict().items()}


def combine(data: ClientData, count: int = 3, sizes: tuple[int, ...] = (1, 1, 1), **options: object):
    model = network()
    mine = heads(model, count)
    before = states({"model": model, **mine})
    hook = PERSONALIZATIONS.create({"name": "mixture", **options})
    with torch.no_grad():  # as an evaluation would call it
        made = hook.combine(model, mine, {str(m): sizes[m] for m in range(count)}, data, RNG)
    after = states({"model": model, **mine})
    assert all(after[name].equal(tensor) for name, tensor in before.items()), "what was given has changed"
    assert all(parameter.requires_grad for parameter in model.parameters())
    return made, mine


def fixed(mixture: torch.nn.Module, mine: dict[str, torch.nn.Module]) -> bool:
    """Say whether the mixture's heads have the very bits of those given."""
    own = states({str(m): head for m, head in enumerate(mixture.heads)})
    return all(own[name].equal(tensor) for name, tensor in states(mine).items())


@pytest.mark.parametrize("aggregate", MODES)
def test_without_labels_the_heads_count_equally_and_stay(aggregate: str):
    made, mine = combine(client(0), aggregate=aggregate)
    assert fixed(made.model, mine)
    assert [made.facts[f"weight_{m}"] for m in range(3)] == [pytest.approx(1 / 3, abs=1e-7)] * 3
    assert made.facts["labels"] == 0
    assert made.facts["entropy"] == pytest.approx(np.log(3), abs=1e-6)


@pytest.mark.parametrize(("num_labelled", "weights"), [(0, [0.75, 0.25]), (4, [0.5, 0.5])])
def test_sizes_weigh_only_where_there_are_no_labels(num_labelled: int, weights: list[float]):
    made, _ = combine(client(num_labelled), 2, (30, 10), no_label_weights="size", aggregate="uniform")
    assert made.model.weights.tolist() == pytest.approx(weights, abs=1e-6)


def test_the_uniform_score_is_of_equal_weights_whatever_the_sizes():
    # P(class 1) is 0.27 and 0.95: 0.61 of both alike, 0.27 of the first alone; all test samples are of class 0.
    model = network()
    mine = heads(model, 2)
    for head, bias in zip(mine.values(), ([1.0, 0.0], [0.0, 3.0]), strict=True):
        head.output.weight.data.zero_()
        head.output.bias.data.copy_(torch.tensor(bias))
    hook = PERSONALIZATIONS.create({"name": "mixture", "no_label_weights": "size"})
    data = client(0, classes=1)
    made = hook.combine(model, mine, {"0": 10**6, "1": 1}, data, RNG)
    assert made.facts["uniform_macro_f1"] == 0
    assert set(made.model(data.test()[0]).logits.argmax(dim=1).tolist()) == {0}


@pytest.mark.parametrize(("num_labelled", "classes", "count"), [(0, 2, 0), (6, 1, 1), (6, 2, 2)])
def test_classes_among_the_labels_are_counted(num_labelled: int, classes: int, count: int):
    made, _ = combine(client(num_labelled, classes=classes))
    assert made.facts["label_classes"] == count


@pytest.mark.parametrize("num_labelled", [0, 10])
def test_heads_that_learned_from_the_labels_have_no_score_before_them(num_labelled: int):
    hook = PERSONALIZATIONS.create({"name": "mixture", "epochs": 1})
    made = hook.personalize(network(), {}, client(num_labelled), RNG)
    assert "uniform_macro_f1" not in made.facts
    assert made.facts["labels"] == num_labelled


@pytest.mark.parametrize("aggregate", ["weights", "uniform"])
def test_one_head_alone_has_the_weight_one(aggregate: str):
    made, mine = combine(client(8), 1, aggregate=aggregate)
    assert fixed(made.model, mine)
    assert made.facts["weight_0"] == 1.0
    assert made.facts["entropy"] == 0.0


def test_labels_move_the_weights_and_lower_the_loss():
    data = client(10)
    x, y = data.plain(data.labelled), data.labels(data.labelled)
    made, mine = combine(data)
    uniform, _ = combine(data, aggregate="uniform")
    assert fixed(made.model, mine)
    assert mixture_loss(made.model(x).logits, y) < mixture_loss(uniform.model(x).logits, y) - 1e-3
    assert float(made.model.weights.sum()) == pytest.approx(1.0, abs=1e-6)
    assert made.facts["uniform_macro_f1"] == uniform.facts["uniform_macro_f1"]


@pytest.mark.parametrize("num_labelled", [1, 10])
@pytest.mark.parametrize("aggregate", ["finetune", "both", "last_layer"])
def test_only_what_is_to_be_trained_is(aggregate: str, num_labelled: int):
    made, mine = combine(client(num_labelled), aggregate=aggregate)
    own = states({str(m): head for m, head in enumerate(made.model.heads)})
    changed = {name[2:] for name, tensor in states(mine).items() if not own[name].equal(tensor)}
    parameters = {name for name, _ in mine["0"].named_parameters()}
    statistics = {name for name in mine["0"].state_dict() if "running" in name or "tracked" in name}
    if aggregate == "last_layer":
        assert changed == {"output.weight", "output.bias"}
    elif num_labelled == 1:
        assert not changed & statistics
        assert "output.weight" in changed
    else:
        assert changed == parameters | statistics
    assert (made.model.v.abs().max() > 0) == (aggregate == "both")
    assert not made.model.heads.training


def test_labels_of_one_class_make_a_mixture_all_the_same():
    made, _ = combine(client(6, classes=1))
    assert np.isfinite(list(made.facts.values())).all()


def test_two_users_have_heads_of_their_own():
    first, mine = combine(client(0))
    second, _ = combine(client(10), aggregate="finetune")
    assert not {id(p) for p in first.model.parameters()} & {id(p) for p in second.model.parameters()}
    assert fixed(first.model, mine)


def test_the_mixture_is_that_of_the_probabilities():
    made, mine = combine(client(0), 2)
    x, _ = client(0).test()
    with torch.no_grad():
        code = network().backbone(x)
        expected = sum(head.eval()(code).softmax(dim=1) for head in mine.values()) / 2
    torch.testing.assert_close(made.model(x).logits.exp(), expected)


@pytest.mark.parametrize("choice", [{"name": "resnet", "width": 2}, {"name": "mlp", "hidden": 8, "layers": 1}])
@pytest.mark.parametrize(("num_labelled", "names"), [(0, {"received"}), (20, {"received", "tuned"})])
def test_any_models_head_is_mixed_with_a_copy_tuned_on_the_labels(choice, num_labelled, names):
    data = client(num_labelled, pictures=choice["name"] == "resnet")
    model = network(**choice)
    before = states({"": model})
    hook = PERSONALIZATIONS.create({"name": "mixture", "epochs": 30, "head_lr": 0.05})
    made = hook.personalize(model, {}, data, RNG)
    assert {name for name in made.facts if name.startswith("weight_")} == {f"weight_{name}" for name in names}
    assert states({"": model}).keys() == before.keys()
    assert all(tensor.equal(before[name]) for name, tensor in states({"": model}).items())
    if num_labelled:
        x, y = data.plain(data.labelled), data.labels(data.labelled)
        alone = -model.eval()(x).logits.log_softmax(dim=1).gather(1, y[:, None]).mean()
        assert mixture_loss(made.model.eval()(x).logits, y) < alone - 0.05


def test_equal_keys_give_equal_bits():
    one, again = (combine(client(10), aggregate="both", batch_size=3)[0] for _ in range(2))
    assert all(a.equal(b) for a, b in zip(one.model.parameters(), again.model.parameters(), strict=True))
