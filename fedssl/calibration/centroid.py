"""Global centroids of FedoSSL: clustered at clients, clustered again at the server, named by class means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedssl.calibration.base import CalibrationHook, register
from fedssl.clustering.centroids import align, global_centroids, kmeans_centroids, local_centroids, spherical_start
from fedssl.config import option
from fedssl.data.views.client_data import ClientData
from fedssl.federation import State, Update
from fedssl.models.feature_cache import plain_features
from fedssl.models.frozen import CutNetwork, trunk_layers
from fedssl.rng import Rng

CENTROIDS = "centroids"
_LOCAL = "local_centroids"
_MEANS = "class_means"
_IDS = "class_ids"
_COUNTS = "class_counts"
_FEW = 1500


@register("centroid")
@dataclass
class Centroid(CalibrationHook):
    """Finds one global centroid a class, in the order of the classes (Zhang et al., ICML 2023, section 4.2).

    A client sends centroids of its own samples and the mean feature of each class it has labels of; never labels, and
    features only with `cluster=none`. Paper: how a cluster gets the number of a class is not said; here by Hungarian
    matching with the class means, and of the others with the rows of the last round.
    """

    on = "trained"

    local: int = option(0, "centroids a client sends (N_local); 0 = 32, or 16 for a client under 1,500 samples", low=0)
    cluster: str = option(
        "sinkhorn",
        "how a client finds its centroids: `sinkhorn` (equal sizes), `kmeans`, or `none`: it sends the unit features",
        choices=("sinkhorn", "kmeans", "none"),
    )
    bank: int = option(1024, "samples that a client clusters (N_mem)", low=2)
    sharpness: float = option(25.0, "factor on similarities in Sinkhorn-Knopp (lambda)", above=0)
    batch_norm: str = option(
        "running",
        "statistics of batch norm for the features: `running`, or of the `batch`, as features are in training",
        choices=("running", "batch"),
    )
    steps: int = option(500, "steps of the server's clustering", low=0)
    align: str = option("on", "give clusters the numbers of classes", choices=("on", "off"))
    unseen: str = option(
        "previous",
        "order of clusters without a labelled class: by last round's, or as they come",
        choices=("previous", "index"),
    )

    def summarise(self, model: torch.nn.Module, data: ClientData, rng: Rng) -> dict[str, torch.Tensor]:
        """Give local centroids (n, dim) in unit rows, and ids, means (k, dim) and counts of labelled classes."""
        split, maps = CutNetwork(model, trunk_layers(model)), getattr(model, "maps", None)
        pool = np.concatenate([data.labelled, data.unlabelled])
        if not len(pool):
            return {}
        drawn = rng.numpy("bank").permutation(pool)[: self.bank]
        features = plain_features(split, data, drawn, maps, batch_norm=self.batch_norm).features.cpu()
        count = self.local or (32 if data.num_examples >= _FEW else 16)
        bank = torch.nn.functional.normalize(features, dim=1)
        found = {_LOCAL: self._local(bank, count, rng.torch("local centroids"))}
        if len(data.labelled):
            features = plain_features(split, data, data.labelled, maps, batch_norm=self.batch_norm).features.cpu()
            ids, inverse, counts = torch.unique(
                data.labels(data.labelled).cpu(), return_inverse=True, return_counts=True
            )
            sums = torch.zeros(len(ids), features.shape[1]).index_add_(0, inverse, features)
            found |= {_IDS: ids, _MEANS: sums / counts[:, None], _COUNTS: counts}
        return found

    def _local(self, bank: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        if self.cluster == "none":
            return bank
        if self.cluster == "kmeans":
            return kmeans_centroids(bank, count, generator)
        return local_centroids(bank, count, generator, self.sharpness)

    def check(self, statistics: State) -> None:
        """Check that shapes fit each other. Raises ValueError."""
        if not statistics:
            return
        local = statistics.get(_LOCAL)
        if local is None or local.ndim != 2 or not local.is_floating_point():
            raise ValueError(f"{_LOCAL} is missing or no matrix of numbers")
        given = [name for name in (_IDS, _MEANS, _COUNTS) if name in statistics]
        if not given:
            return
        if len(given) < 3:
            raise ValueError(f"{_IDS}, {_MEANS} and {_COUNTS} come together, not only {', '.join(given)}")
        ids, means, counts = (statistics[name] for name in (_IDS, _MEANS, _COUNTS))
        if ids.ndim != 1 or counts.shape != ids.shape or means.shape != (len(ids), local.shape[1]):
            raise ValueError(f"{_MEANS} has shape {tuple(means.shape)}, not one row of {local.shape[1]} a class")
        if len(torch.unique(ids)) != len(ids) or (ids < 0).any() or (counts <= 0).any():
            raise ValueError(f"{_IDS} or {_COUNTS} are not distinct classes with samples")

    def calibrate(self, model: State, extra: State, updates: Sequence[Update], rng: Rng) -> State:
        """Give new `centroids` (classes, dim); the old ones if too few local ones came in."""
        head = model["head.weight"].detach().cpu().float()
        stacked = [update.statistics[_LOCAL].cpu().float() for update in updates if _LOCAL in update.statistics]
        stacked = [part for part in stacked if part.shape[1] == head.shape[1]]
        if sum(map(len, stacked)) < len(head):
            return {}
        points = torch.cat(stacked)
        before = extra[CENTROIDS].cpu() if CENTROIDS in extra else None
        start = spherical_start(points, len(head), rng.torch("centroids")) if before is None else before
        found = global_centroids(points, start, self.steps, self.sharpness)
        if self.align == "on":
            means, counts = self.class_means(updates, head)
            previous = head if before is None else before
            found = found[align(means, counts, found, previous if self.unseen == "previous" else None)]
        return {CENTROIDS: found}

    def tell(self, extra: State, made: State, updates: Sequence[Update]) -> dict[str, float]:
        """Give how well centroids fit the labelled classes and those before, and how clusters differ in size.

        `centroid_alignment`: mean cosine of a labelled class's mean to its centroid; `centroid_kept`: of a centroid to
        that before; `centroid_id_changes`: centroids nearest to another one before; `centroid_largest`, `_smallest`:
        shares of the local centroids that are nearest to the most and the least asked one.
        """
        if CENTROIDS not in made:
            return {}
        unit, found = torch.nn.functional.normalize, {}
        after = unit(made[CENTROIDS].cpu().float(), dim=1)
        means, counts = self.class_means(updates, after)
        if (counts > 0).any():
            found["centroid_alignment"] = float((unit(means, dim=1) * after).sum(dim=1)[counts > 0].mean())
        local = [update.statistics[_LOCAL].cpu().float() for update in updates if _LOCAL in update.statistics]
        points = torch.cat([part for part in local if part.shape[1] == after.shape[1]])
        shares = torch.bincount((points @ after.T).argmax(dim=1), minlength=len(after)) / len(points)
        found |= {"centroid_largest": float(shares.max()), "centroid_smallest": float(shares.min())}
        if CENTROIDS in extra:
            like = after @ unit(extra[CENTROIDS].cpu().float(), dim=1).T
            found["centroid_kept"] = float(like.diagonal().mean())
            found["centroid_id_changes"] = float((like.argmax(dim=1) != torch.arange(len(after))).sum())
        return found

    def directions(self, extra: State) -> torch.Tensor | None:
        """Return the global centroids, if there are any yet."""
        return extra.get(CENTROIDS)

    def class_means(self, updates: Sequence[Update], head: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give each class's mean feature over all clients (classes, dim) and its count; 0 for one nobody has."""
        sums, counts = torch.zeros_like(head), torch.zeros(len(head))
        for update in updates:
            if _IDS in update.statistics:
                ids, n = update.statistics[_IDS].cpu(), update.statistics[_COUNTS].cpu().float()
                known = ids < len(head)
                sums.index_add_(0, ids[known], (update.statistics[_MEANS].cpu() * n[:, None])[known])
                counts.index_add_(0, ids[known], n[known])
        return sums / counts.clamp(min=1)[:, None], counts
