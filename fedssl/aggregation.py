"""Names and options of the Flower strategies that may average the clients' answers; the server builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedssl.config import option
from fedssl.registry import Registry


class Aggregation:
    """Base of the choices; `name` is the class in `flwr.serverapp.strategy`, the fields are its arguments."""

    name: ClassVar[str] = ""


AGGREGATIONS: Registry[Aggregation] = Registry("aggregation", "fedssl.aggregation")
register = AGGREGATIONS.register


@register("FedAvg")
@dataclass
class FedAvg(Aggregation):
    """Mean weighted by samples (McMahan et al. 2017)."""


@register("FedAvgM")
@dataclass
class FedAvgM(Aggregation):
    """FedAvg with momentum at the server (Hsu et al. 2019)."""

    server_learning_rate: float = option(1.0, "step along the mean change", above=0)
    server_momentum: float = option(0.9, "momentum of the mean change", low=0, below=1)


@register("FedAdam")
@dataclass
class FedAdam(Aggregation):
    """Adam at the server (Reddi et al. 2021, Algorithm 2)."""

    eta: float = option(0.01, "server step size", above=0)
    beta_1: float = option(0.9, "decay of the first moment", low=0, below=1)
    beta_2: float = option(0.99, "decay of the second moment", low=0, below=1)
    tau: float = option(1e-3, "adaptivity, added to the root of the second moment", above=0)


@register("FedYogi")
@dataclass
class FedYogi(FedAdam):
    """Yogi at the server (Reddi et al. 2021, Algorithm 2)."""


@register("FedAdagrad")
@dataclass
class FedAdagrad(Aggregation):
    """Adagrad at the server (Reddi et al. 2021, Algorithm 2)."""

    eta: float = option(0.01, "server step size", above=0)
    tau: float = option(1e-3, "adaptivity, added to the root of the second moment", above=0)


@register("FedMedian")
@dataclass
class FedMedian(Aggregation):
    """Coordinate-wise median (Yin et al. 2018)."""


@register("FedTrimmedAvg")
@dataclass
class FedTrimmedAvg(Aggregation):
    """Coordinate-wise trimmed mean (Yin et al. 2018)."""

    beta: float = option(0.2, "share cut off at each end", low=0, below=0.5)


@register("Krum")
@dataclass
class Krum(Aggregation):
    """The one answer nearest to its neighbours (Blanchard et al. 2017)."""

    num_malicious_nodes: int = option(0, "answers assumed malicious", low=0)


@register("MultiKrum")
@dataclass
class MultiKrum(Aggregation):
    """Mean of the answers nearest to their neighbours (Blanchard et al. 2017)."""

    num_malicious_nodes: int = option(0, "answers assumed malicious", low=0)
    num_nodes_to_select: int = option(1, "answers averaged", low=1)
