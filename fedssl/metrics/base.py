"""What a metric is: a declaration of what its numbers mean, beside the function that computes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fedssl.registry import Catalogue

if TYPE_CHECKING:
    from numpy import ndarray

    Function = TypeVar("Function", bound=Callable[..., Any])

PERSONAL = "personal_"
"""Prefix of a metric of the clients' own models; what it means is declared by the name behind it."""
WARM_UP = "warm_up_"
"""Prefix, among the numbers of training, of the scores of a model that a method has trained before the rounds."""
Unit = Literal["", "share", "nats", "count"]
"""A share is 0..1 and shown in percent; empty: a plain number."""
SIGNS: dict[Unit, str] = {"": "", "share": "%", "nats": "nats", "count": ""}


@dataclass(frozen=True)
class Metric:
    """What a number of a run means, for all that show, rank or compare it.

    `words` empty: the name with spaces. `order` is the place in tables; without one, behind those that have it.
    `member` makes it a family: the words of `<name>_<member>`, in which `{member}` stands for the rest of the name.
    """

    name: str
    words: str = ""
    unit: Unit = ""
    better: Literal["", "higher", "lower"] = ""
    order: float = math.inf
    member: str = ""
    sums_up: bool = False
    """Fit to sum a run up; of several, the first by `order` does."""
    is_member: bool = False
    """One of a family, of which there may be many."""
    of: str = ""
    """The answers that it is scored from; see `register`."""

    @property
    def title(self) -> str:
        """Return the name in words."""
        return self.words or self.name.replace("_", " ")

    @property
    def is_share(self) -> bool:
        """Say whether it is shown in percent."""
        return self.unit == "share"

    @property
    def axis(self) -> str:
        """Return the label of an axis: words and unit."""
        return f"{self.title} ({SIGNS[self.unit]})" if SIGNS[self.unit] else self.title


@dataclass(frozen=True)
class Score:
    """How a task's answers become values of metrics; see `register`."""

    metrics: tuple[Metric, ...]
    of: str
    tasks: tuple[str, ...]
    function: Callable[..., float | dict[str, float]]
    by_client: Callable[..., ndarray | dict[str, ndarray]] | None

    def named(self, values: Any) -> dict[str, Any]:
        """Return the values by metric."""
        return values if isinstance(values, dict) else {self.metrics[0].name: values}


METRICS: Catalogue[Metric] = Catalogue("metric", "fedssl.metrics")
SCORES: Catalogue[Score] = Catalogue("score", "fedssl.metrics")


def declare(*metrics: Metric) -> None:
    """Declare metrics that no task scores, such as those of training. Raises ValueError on a name taken."""
    for each in metrics:
        METRICS.add(each.name, each)


def register(
    *metrics: Metric,
    of: str,
    tasks: Sequence[str] = (),
    by_client: Callable[..., ndarray | dict[str, ndarray]] | None = None,
) -> Callable[[Function], Function]:
    """Declare metrics and decorate the function that scores them, for all tasks or some.

    `of` names the answers that the function takes, as in `Task.answers`: `logits` (logits, y), `clusters` (predicted,
    y, kinds) or `boxes` (found, scenes). It returns the value, or several by name. `by_client` returns (clients,)
    instead: of `logits` from a `ClientRows`, of `boxes` from (found, scenes, index, offsets). Raises ValueError on a
    name taken.
    """

    def add(function: Function) -> Function:
        declare(*(replace(each, of=of) for each in metrics))
        SCORES.add(metrics[0].name, Score(metrics, of, tuple(tasks), function, by_client))
        return function

    return add


def score(task: str, answers: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """Return all metrics of a task, by the arguments of each kind of answers."""
    found: dict[str, float] = {}
    for each in _scores(task, answers):
        found |= each.named(each.function(*answers[each.of]))
    return found


def score_clients(task: str, answers: Mapping[str, Sequence[Any]]) -> dict[str, ndarray]:
    """Return the metrics of a task that have a value by client, each (clients,)."""
    found: dict[str, ndarray] = {}
    for each in _scores(task, answers):
        if each.by_client is not None:
            found |= each.named(each.by_client(*answers[each.of]))
    return found


def _scores(task: str, answers: Mapping[str, Sequence[Any]]) -> list[Score]:
    fit = [each for each in SCORES.values() if each.of in answers and task in (each.tasks or (task,))]
    return sorted(fit, key=lambda each: each.metrics[0].order)


def metric_of(name: str) -> Metric:
    """Return what a name means: as declared, as a member of the family it begins with, or by default.

    An unknown name that begins with a declared one, as in `accuracy_<something>`, has its unit and direction.
    """
    base = name.removeprefix(PERSONAL)
    found = METRICS.get(base) if base in METRICS.names() else _undeclared(base)
    return found if base == name else replace(found, name=name, words=f"{found.title}, clients' own models")


def _undeclared(name: str) -> Metric:
    owners = [each for each in METRICS.values() if name.startswith(f"{each.name}_")]
    owner = max(owners, key=lambda each: len(each.name), default=Metric(""))
    words = owner.member.format(member=name[len(owner.name) + 1 :])
    return Metric(name, words, owner.unit, owner.better, is_member=bool(words), of=owner.of)


def sort_key(name: str) -> tuple[bool, float, str]:
    """Order metrics: the global model's before the clients' own, then by `order`, then by name."""
    return name.startswith(PERSONAL), metric_of(name).order, name
