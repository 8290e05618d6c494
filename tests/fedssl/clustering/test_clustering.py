from __future__ import annotations

import math

import pytest
import torch

from fedssl.clustering import centroids as clustering


def at(*degrees):
    """Unit vectors in the plane."""
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def angles(rows):
    return torch.rad2deg(torch.atan2(rows[:, 1], rows[:, 0])).tolist()


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def local(checked):
    return checked(clustering, "local_centroids")


@pytest.fixture
def kmeans(checked):
    return checked(clustering, "kmeans_centroids")


@pytest.fixture
def globally(checked):
    return checked(clustering, "global_centroids")


@pytest.fixture
def align(checked):
    return checked(clustering, "align")


def test_a_local_centroid_is_the_direction_of_its_members_sum(local):
    found = local(torch.eye(2), 1, drawn())
    torch.testing.assert_close(found, torch.tensor([[0.707107, 0.707107]]), rtol=0, atol=1e-6)


def test_two_tight_groups_get_a_centroid_each(local):
    bank = at(-1, 0, 1, 89, 90, 91)
    # Drawn starts are of one group with some seeds: balanced assignment parts the groups all the same.
    for seed in range(20):
        assert sorted(angles(local(bank, 2, drawn(seed)))) == pytest.approx([0, 90], abs=1e-3)


def test_local_centroids_are_unit_rows_and_at_most_the_bank(local):
    bank = torch.nn.functional.normalize(torch.randn(100, 8, generator=drawn()), dim=1)
    found = local(bank, 32, drawn(1))
    assert found.shape == (32, 8)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(32))
    assert local(bank[:5], 32, drawn(1)).shape == (5, 8)
    assert local(bank[:0], 32, drawn(1)).shape == (0, 8)
    assert torch.equal(found, local(bank, 32, drawn(1)))
    assert not torch.equal(found, local(bank, 32, drawn(2)))


def test_members_that_cancel_out_leave_a_row_of_the_bank(local):
    found = local(at(0, 180), 1, drawn())
    assert found.norm().item() == pytest.approx(1)
    assert abs(found[0, 0].item()) == pytest.approx(1)


def test_a_cluster_that_stays_empty_takes_a_row_of_the_bank(local):
    # All rows are one point, and argmax gives them all to the first cluster.
    found = local(at(30, 30, 30), 3, drawn())
    torch.testing.assert_close(found, at(30, 30, 30))


def test_k_means_finds_groups_of_unequal_sizes(kmeans):
    bank = at(-1, 0, 1, 90)
    for seed in range(5):
        assert sorted(angles(kmeans(bank, 2, drawn(seed)))) == pytest.approx([0, 90], abs=1e-3)


def test_k_means_gives_unit_rows_at_most_the_bank_from_its_generator_alone(kmeans):
    bank = torch.nn.functional.normalize(torch.randn(100, 8, generator=drawn()), dim=1)
    found = kmeans(bank, 32, drawn(1))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(32))
    assert torch.equal(found, kmeans(bank, 32, drawn(1)))
    assert not torch.equal(found, kmeans(bank, 32, drawn(2)))
    assert kmeans(bank[:5], 32, drawn(1)).shape == (5, 8)


@pytest.mark.parametrize(
    ("start", "before", "after", "expected"),
    [
        ((10, 30), -0.976847, -0.999921, [6.02, 55.48]),
        ((20, 70), None, None, [19.85, 70.15]),
        ((44, 46), -0.985891, -0.999991, [21.47, 68.53]),
    ],
)
def test_global_clustering_moves_centroids_to_known_angles(globally, start, before, after, expected):
    points = at(-5, 0, 5, 85, 90, 95)
    found = globally(points, at(*start), 500, 25.0)
    assert angles(found) == pytest.approx(expected, abs=0.1)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert (points @ found.T).argmax(dim=1).tolist() == [0, 0, 0, 1, 1, 1]
    if before is not None:
        assert clustering.balance_loss(points, at(*start)).item() == pytest.approx(before, abs=1e-6)
        assert clustering.balance_loss(points, found).item() == pytest.approx(after, abs=1e-6)


def test_global_clustering_starts_where_it_is_told_and_leaves_that_alone(globally):
    points, start = at(-5, 0, 5, 85, 90, 95), at(20, 70)
    torch.testing.assert_close(globally(points, 3 * start, 0, 25.0), at(20, 70))
    kept = start.clone()
    globally(points, start, 3, 25.0)
    assert torch.equal(start, kept)
    assert not start.requires_grad


def test_the_balanced_target_gets_no_gradient():
    points, centroids = at(-5, 5, 90), at(10, 30).requires_grad_()
    (slope,) = torch.autograd.grad(clustering.balance_loss(points, centroids), centroids)
    target = clustering.sinkhorn((points @ centroids.T).detach(), 25.0)
    fixed = -torch.cosine_similarity(target, torch.softmax(points @ centroids.T / 0.1, 1), 1).mean()
    torch.testing.assert_close(slope, torch.autograd.grad(fixed, centroids)[0])


def test_the_start_takes_far_points_before_repeated_ones(checked):
    start = checked(clustering, "spherical_start")
    points = 7 * at(0, 0, 0, 120, 120, 240)
    for seed in range(10):
        assert sorted(angles(start(points, 3, drawn(seed)))) == pytest.approx([-120, 0, 120], abs=1e-3)
    torch.testing.assert_close(start(at(5, 5), 2, drawn()), at(5, 5))
    with pytest.raises(ValueError, match="2 points cannot start 3"):
        start(at(5, 5), 3, drawn())


@pytest.mark.parametrize(
    ("similarity", "expected", "total"),
    [
        ([[0.9, 0.8, 0.1], [0.85, 0.2, 0.1]], [1, 0], 1.65),
        ([[0.9, 0.5, 0.1, 0], [0.95, 0.85, 0.2, 0.1], [0.92, 0.9, 0.3, 0.2]], [0, 1, 2], 2.05),
    ],
)
def test_the_best_match_beats_the_greedy_one(checked, similarity, expected, total):
    similarity = torch.tensor(similarity)
    found = checked(clustering, "best_match")(similarity)
    assert found.tolist() == expected
    assert similarity[range(len(found)), found].sum().item() == pytest.approx(total)


def test_seen_classes_take_their_centroids_and_the_rest_follow_the_last_round(align):
    centroids = torch.eye(5)
    means = torch.zeros(5, 5)
    means[0], means[1] = 4 * torch.eye(5)[3], 9 * torch.eye(5)[0]
    counts = torch.tensor([10.0, 2.0, 0.0, 0.0, 0.0])
    previous = torch.eye(5)[[0, 1, 4, 1, 2]]
    found = align(means, counts, centroids, previous)
    assert found.tolist() == [3, 0, 4, 1, 2]
    again = align(means, counts, centroids[found], centroids[found])
    assert again.tolist() == [0, 1, 2, 3, 4]


def test_without_a_last_round_the_rest_fill_up_in_order(align):
    means = torch.eye(4)[[2, 0, 0, 0]]
    assert align(means, torch.tensor([5.0, 0, 0, 0]), torch.eye(4), None).tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("counts", [[0.0, 0, 0], [0, 1, 0], [1, 1, 1]], ids=["none", "a gap", "all"])
def test_any_counts_give_a_permutation(align, counts):
    generator = drawn(5)
    means, centroids, previous = (torch.randn(3, 4, generator=generator) for _ in range(3))
    for last in (previous, None):
        found = align(means, torch.tensor(counts), centroids, last)
        assert sorted(found.tolist()) == [0, 1, 2]


def test_a_seen_class_that_nobody_holds_takes_no_part(align):
    # The mean of class 0 points at centroid 2, but rests on no sample: its last row decides.
    means, previous = torch.eye(3)[[2, 1, 0]], torch.eye(3)[[0, 1, 2]]
    assert align(means, torch.tensor([0.0, 3.0, 0.0]), torch.eye(3), previous).tolist() == [0, 1, 2]
