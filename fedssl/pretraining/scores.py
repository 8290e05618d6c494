"""How good features are: neighbours, a linear classifier, and their rank."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fedssl.data.views.augment import normalise
from fedssl.pretraining.plan import Plan
from fedssl.progress import report_progress
from fedssl.runtime import autocast

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_NEIGHBOURS, _SHARPNESS = 20, 1 / 0.07
_RANK_SAMPLES = 25_600
_PROBE_STEPS = 200
_BATCH = 500
_STAGE = "scoring by neighbours"


def features(
    model: torch.nn.Module, x: NDArray[np.uint8], plan: Plan, before: int = 0, total: int | None = None
) -> Tensor:
    """Return the backbone's features (n, dim), float32, of images without augmentation, in eval mode.

    Progress is reported as images done of `total`, `before` of which were done earlier.
    """
    model.eval()
    found, total = [], len(x) if total is None else total
    with torch.no_grad(), autocast(plan.precision, plan.device):
        for start in range(0, len(x), _BATCH):
            report_progress(_STAGE, before + start, total)
            part = torch.from_numpy(np.array(x[start : start + _BATCH])).to(plan.device)
            maps = model.backbone(normalise(part, plan.dataset.mean, plan.dataset.std))  # type: ignore[operator]
            found.append(maps.float().cpu())
    return torch.cat(found)


def neighbour_accuracy(model: torch.nn.Module, plan: Plan) -> float:
    """Give the k-NN accuracy on the test split; neighbours are the images trained on whose class is known."""
    bank, test = _both(model, plan)
    return _neighbour_accuracy(*bank, *test)


def all_scores(model: torch.nn.Module, plan: Plan) -> dict[str, float]:
    """Give k-NN accuracy and linear accuracy on the test split, and the rank of the test features.

    True classes are read for these scores alone.
    """
    bank, test = _both(model, plan)
    neighbour = _neighbour_accuracy(*bank, *test)
    report_progress("fitting a linear classifier", 0, 1)
    linear = linear_accuracy(*bank, *test)
    report_progress("fitting a linear classifier", 1, 1)
    return {"knn_accuracy": neighbour, "linear_accuracy": linear, "rank": effective_rank(test[0][:_RANK_SAMPLES])}


def _both(model: torch.nn.Module, plan: Plan) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return features and true classes of the labelled images trained on, and of the test split."""
    train, test = plan.dataset.train, plan.dataset.test
    known = plan.index[train.y[plan.index] >= 0]
    total = len(known) + len(test)
    bank = features(model, train.x[known], plan, 0, total)
    tested = features(model, test.x, plan, len(known), total)
    report_progress(_STAGE, total, total)
    return (bank, torch.from_numpy(train.y[known])), (tested, torch.from_numpy(np.array(test.y)))


def _neighbour_accuracy(bank: Tensor, y: Tensor, test: Tensor, true: Tensor) -> float:
    return float((neighbours(bank, y, test) == true).float().mean())


def neighbours(
    bank: Float[Tensor, "n dim"], y: Int[Tensor, " n"], x: Float[Tensor, "m dim"], count: int = _NEIGHBOURS
) -> Int[Tensor, " m"]:
    """Give the class of each row of `x` by its `count` nearest of `bank` in cosine, each weighing exp(cosine / 0.07).

    Source: Wu et al. 2018 (Instance Discrimination), section 3.4.
    """
    bank = functional.normalize(bank, dim=1)
    classes = int(y.max()) + 1
    found = []
    rows = functional.normalize(x, dim=1)
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        nearest = (part @ bank.T).topk(min(count, len(bank)), dim=1)
        # The largest cosine is taken off, so that the weights stay within float32.
        weight = ((nearest.values - nearest.values[:, :1]) * _SHARPNESS).exp()
        votes = torch.zeros(len(part), classes).scatter_add_(1, y[nearest.indices], weight)
        found.append(votes.argmax(dim=1))
    return torch.cat(found)


def linear_accuracy(
    bank: Float[Tensor, "n dim"], y: Int[Tensor, " n"], x: Float[Tensor, "m dim"], true: Int[Tensor, " m"]
) -> float:
    """Give the accuracy on `x` of logistic regression fitted to `bank`, on standardised features (L2, C = 1)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, std = bank.mean(dim=0), bank.std(dim=0).clamp(min=1e-6)
    with warnings.catch_warnings():
        # The steps are bounded on purpose.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe = LogisticRegression(max_iter=_PROBE_STEPS).fit(((bank - mean) / std).numpy(), y.numpy())
    return float(probe.score(((x - mean) / std).numpy(), true.numpy()))


def effective_rank(x: Float[Tensor, "n dim"]) -> float:
    """Give exp of the entropy of the normalised singular values: 1 if all rows are parallel, at most min(n, dim).

    Source: Garrido et al. 2023 (RankMe), eq. 1, without its 1e-7; needs no labels.
    """
    values = torch.linalg.svdvals(x.double())
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())
