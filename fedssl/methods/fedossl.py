"""FedoSSL: unbiased training in federated open-world semi-supervised learning (Zhang et al., ICML 2023).

ORCA's loss, an uncertainty-aware suppressed term R (equation 5), and two losses against global centroids (equations 8
and 9), which the `centroid` calibration hook finds at the server.
Paper: equation 3 has a wrong sign; R is printed with a minus that its absolute value undoes (`uncertainty` offers the
readings); how centroids meet class ids is not said (the hook aligns them); the text says gamma = 1, figure 5 peaks at
0.5; warm-up, margin, entropy term and the threshold of L_ce stand in the authors' code alone. The preset `paper`
follows the text, `released_code` the code, the defaults what reproduces table 2 best.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from fedssl.calibration.centroid import CENTROIDS
from fedssl.config import option
from fedssl.federation import Payload, ServerState, State, Step
from fedssl.losses.base import Counts
from fedssl.losses.centroids import cluster_loss, hard_centroid_loss, soft_assignment, soft_centroid_loss
from fedssl.losses.uncertainty import uncertainty_loss
from fedssl.methods.base import register
from fedssl.methods.orca import LocalTraining, Orca, Rows


@dataclass
class WithCentroids(Payload):
    """The model, and global centroids (classes, dim) in unit rows; none before the first clustering."""

    centroids: State = field(default_factory=dict)


@dataclass
class Predicted:
    """How often each class was predicted on unlabelled samples: `counts` weigh R in this epoch, `seen` collects."""

    counts: torch.Tensor
    seen: torch.Tensor


@register("fedossl")
@dataclass
class FedoSSL(Orca):
    """Adds what keeps training from favouring classes that are easy or that many clients hold."""

    payload_type: ClassVar[type[Payload]] = WithCentroids
    calibration: ClassVar[str] = "centroid"
    defaults: ClassVar[tuple[str, ...]] = (
        *Orca.defaults,
        # Its own hook by name, so that `calibration.OPTION=` can be given.
        "calibration=centroid",
        # For a run that does not name its method: a few hundred samples a client, two cores.
        "method.epochs=2",
        "method.batch_size=64",
        "method.cache_views=4",
        # As in the paper's text: in 20 rounds there is no time to lose.
        "method.warmup=off",
    )

    uncertainty: str = option(
        "A", "reading of R: A as printed, B its negative, C by the stated intent", choices=("A", "B", "C", "off")
    )
    uncertainty_weight: float = option(1.0, "weight of R (beta)", low=0)
    tau: float = option(0.2, "base of the weights in R", above=0, high=1)
    cluster_weight: float = option(0.5, "weight of L_cluster (gamma)", low=0)
    centroid_weight: float = option(0.5, "weight of L_ce (gamma)", low=0)
    cluster_rows: str = option("all", "rows in L_cluster", choices=("all", "unlabelled"))
    centroid_labels: str = option(
        "hard", "L_ce learns the nearest centroid, or all by nearness", choices=("hard", "soft")
    )
    centroid_threshold: float = option(0.95, "least nearness for L_ce with hard labels", low=0, high=1)
    temperature: float = option(0.1, "temperature of nearness to centroids (T)", above=0)
    warmup: str = option(
        "auto",
        "`auto`: L_cluster after 10 % of the rounds, L_ce 4 % later; `released`: after 5 and 7 rounds, as in the code",
        choices=("auto", "off", "released"),
    )

    def downlink(self, server: ServerState, client_id: int, step: Step) -> Payload:
        """Give the model and the global centroids."""
        del client_id, step
        known = {CENTROIDS: server.extra[CENTROIDS]} if CENTROIDS in server.extra else {}
        return WithCentroids(server.model, known)

    def stages(self, num_rounds: int) -> tuple[int, int]:
        """Give the rounds, from 0, at which L_cluster and L_ce begin."""
        if self.warmup == "off":
            return 0, 0
        if self.warmup == "released":
            return 5, 7
        first = max(1, round(0.10 * num_rounds))
        return first, first + max(1, round(0.04 * num_rounds))

    def context(self, run: LocalTraining, unlabelled: torch.Tensor, last: Predicted | None) -> Predicted:
        """Give the predicted class counts: of all unlabelled samples at first, then of the last epoch's batches."""
        if last is not None:
            return Predicted(last.seen, torch.zeros_like(last.seen))
        num_classes = run.data.num_classes
        counts = torch.zeros(num_classes, dtype=torch.int64)
        if len(unlabelled):
            counts = torch.bincount(unlabelled.argmax(1).cpu(), minlength=num_classes)
        return Predicted(counts, torch.zeros_like(counts))

    def extra_loss(self, rows: Rows, run: LocalTraining) -> tuple[torch.Tensor | None, Counts]:
        """Give beta R + gamma L_cluster + gamma L_ce, as far as the round's stage has them."""
        p_ulb = rows.probability[0][rows.num_labelled :]
        predicted: Predicted = run.context
        predicted.seen += torch.bincount(p_ulb.detach().argmax(1).cpu(), minlength=len(predicted.seen))
        terms: dict[str, torch.Tensor] = {}
        if self.uncertainty != "off" and self.uncertainty_weight and len(p_ulb):
            value = uncertainty_loss(p_ulb, predicted.counts, self.tau, self.uncertainty)
            terms["uncertainty"] = self.uncertainty_weight * value
        share: Counts = {}
        if centroids := run.payload.centroids:  # type: ignore[attr-defined]
            more, share = self.centroid_losses(rows, centroids[CENTROIDS], run.step)
            terms.update(more)
        counts = {f"loss_{name}": (float(value.detach()), 1.0) for name, value in terms.items()}
        values = list(terms.values())
        return (torch.stack(values).sum() if values else None), {**counts, **share}

    def centroid_losses(
        self, rows: Rows, centroids: torch.Tensor, step: Step
    ) -> tuple[dict[str, torch.Tensor], Counts]:
        """Give gamma L_cluster and gamma L_ce once their stage has come, and the share of rows sure of a centroid."""
        begin_cluster, begin_centroid = self.stages(step.num_rounds)
        round_, num_lb = step.round_ - 1, rows.num_labelled
        terms: dict[str, torch.Tensor] = {}
        share: Counts = {}
        if round_ >= begin_cluster and self.cluster_weight:
            first = 0 if self.cluster_rows == "all" else num_lb
            near = soft_assignment(rows.features[0][first:], centroids, self.temperature)
            partner = soft_assignment(rows.features[1][rows.partner[first:]], centroids, self.temperature)
            if len(near):
                terms["cluster"] = self.cluster_weight * cluster_loss(near, partner)
        if round_ >= begin_centroid and self.centroid_weight and len(rows.logits) > num_lb:
            near = soft_assignment(rows.features[0][num_lb:].detach(), centroids, self.temperature)
            logits = rows.logits[num_lb:]
            if self.centroid_labels == "hard":
                value = hard_centroid_loss(near, logits, self.centroid_threshold)
            else:
                value = soft_centroid_loss(near, logits)
            terms["centroid"] = self.centroid_weight * value
            share = {"pseudo_mask_rate": (float((near.amax(1) > self.centroid_threshold).sum()), float(len(near)))}
        return terms, share
