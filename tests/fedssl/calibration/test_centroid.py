"""Tests of fedssl.calibration.centroid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from fedssl.calibration.base import CALIBRATIONS
from fedssl.data.base import Dataset, Indices, Samples
from fedssl.data.views.client_data import ClientData
from fedssl.models.base import Outputs
from fedssl.rng import Rng

RNG = Rng(0)


@dataclass
class Answer:
    client_id: int
    statistics: dict[str, torch.Tensor]
    num_examples: int = 1


def hook(**options: Any) -> Any:
    return CALIBRATIONS.create({"name": "centroid", **options})


def rows(*angles: float) -> torch.Tensor:
    """Give unit rows in the plane, from degrees."""
    turned = torch.deg2rad(torch.tensor(angles))
    return torch.stack([turned.cos(), turned.sin()], dim=1)


def angles(points: torch.Tensor) -> list[float]:
    return [round(float(a), 1) for a in torch.rad2deg(torch.atan2(points[:, 1], points[:, 0]))]


def statistics(local: torch.Tensor, ids: list[int], means: torch.Tensor, counts: list[int]) -> dict[str, torch.Tensor]:
    found = {"local_centroids": local, "class_ids": torch.tensor(ids), "class_means": means}
    return {**found, "class_counts": torch.tensor(counts)}


MODEL = {"head.weight": rows(0, 90)}


def test_centroids_take_the_number_of_the_class_whose_mean_is_nearest():
    start = {"centroids": rows(10, 30)}
    answer = Answer(0, statistics(rows(-5, 0, 5, 85, 90, 95), [0, 1], rows(80, 3), [4, 4]))
    made = hook().calibrate(MODEL, start, [answer], RNG)["centroids"]
    # The clustering alone ends at 6.02 and 55.48 degrees; class 0 lies at 80 degrees.
    assert angles(made) == pytest.approx([55.5, 6.0], abs=0.1)
    as_they_come = hook(align="off").calibrate(MODEL, start, [answer], RNG)["centroids"]
    assert angles(as_they_come) == pytest.approx([6.0, 55.5], abs=0.1)


def test_class_means_are_weighted_by_their_counts():
    two = [
        Answer(0, statistics(rows(0, 1), [0], torch.tensor([[1.0, 2.0]]), [100])),
        Answer(1, statistics(rows(0, 1), [0, 1], torch.tensor([[3.0, 6.0], [7.0, 7.0]]), [300, 1])),
    ]
    means, counts = hook().class_means(two, torch.zeros(3, 2))
    assert means.tolist() == [[2.5, 5.0], [7.0, 7.0], [0.0, 0.0]]
    assert counts.tolist() == [400, 1, 0]


def test_too_few_uploads_keep_the_centroids():
    one = Answer(0, statistics(rows(40), [0], rows(40), [1]))
    assert hook().calibrate(MODEL, {"centroids": rows(10, 30)}, [one], RNG) == {}
    assert hook().calibrate(MODEL, {}, [Answer(0, {})], RNG) == {}


def test_the_first_centroids_are_found_from_the_uploads():
    local = rows(-5, 0, 5, 85, 90, 95)
    made = hook().calibrate(MODEL, {}, [Answer(0, statistics(local, [0], rows(0), [9]))], RNG)["centroids"]
    assert made.shape == (2, 2)
    assert torch.allclose(made.norm(dim=1), torch.ones(2))
    assert (made @ rows(0).T).argmax() == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"local_centroids": torch.ones(3)}, "local_centroids"),
        ({"class_means": torch.ones(1, 5)}, "class_means"),
        ({"class_ids": torch.tensor([0, 0])}, "class_ids"),
        ({"class_ids": torch.tensor([0, -1])}, "class_ids"),
        ({"class_counts": torch.tensor([0, 3])}, "class_counts"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], said: str):
    good = statistics(rows(0, 90), [0, 1], rows(0, 90), [2, 3])
    hook().check(good)
    hook().check({})
    with pytest.raises(ValueError, match=said):
        hook().check({**good, **change})
    with pytest.raises(ValueError, match="come together"):
        hook().check({name: value for name, value in good.items() if name != "class_counts"})


def test_what_a_round_tells_of_its_centroids_by_hand():
    answer = Answer(0, statistics(rows(0, 10, 80, 90), [1], rows(60), [4]))
    before, made = {"centroids": rows(90, 0)}, {"centroids": rows(0, 90)}
    told = hook().tell(before, made, [answer])
    # Class 1 lies 30 degrees from its centroid; both centroids changed places.
    assert told == pytest.approx(
        {
            "centroid_alignment": 0.75**0.5,
            "centroid_largest": 0.5,
            "centroid_smallest": 0.5,
            "centroid_kept": 0.0,
            "centroid_id_changes": 2.0,
        },
        abs=1e-6,
    )
    assert "centroid_kept" not in hook().tell({}, made, [answer])
    assert hook().tell(before, {}, [answer]) == {}


class Features(torch.nn.Module):
    """Takes a picture's pixels for its features."""

    trunk_layers = 0

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Flatten())
        self.head = torch.nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> Outputs:
        """Give features and logits."""
        features = self.backbone(x)
        return Outputs(features, self.head(features))


def client_data() -> ClientData:
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8)
    samples = Samples(x, np.arange(12) % 2, np.full(12, -1))
    dataset = Dataset("random", samples, samples, ("a", "b"), (0.5,), (0.25,), "key")
    indices = Indices(np.arange(12), np.zeros(0, np.int64))
    return ClientData(0, dataset, indices, samples.y, False, torch.device("cpu"))


def sent(cluster: str) -> torch.Tensor:
    found: torch.Tensor = hook(local=4, cluster=cluster).summarise(Features(), client_data(), RNG)["local_centroids"]
    return found


def test_without_clustering_a_client_sends_its_unit_features():
    data = client_data()
    bank = torch.nn.functional.normalize(data.plain(data.labelled).flatten(1), dim=1)
    found = sent("none")
    assert found.shape == bank.shape
    assert (found @ bank.T).max(dim=1).values.tolist() == pytest.approx([1.0] * 12, abs=1e-5)


def test_k_means_and_sinkhorn_send_as_many_centroids_but_others():
    one, other = sent("sinkhorn"), sent("kmeans")
    assert one.shape == other.shape == (4, 64)
    assert not torch.allclose(one, other)
