"""What a task is: how a model is asked and which metrics score its answers."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedssl.data.base import Dataset, Samples
from fedssl.data.base import Ints as Ints
from fedssl.data.views.modality import model_input
from fedssl.metrics.base import score, score_clients
from fedssl.metrics.by_client import ClientRows
from fedssl.registry import Registry

if TYPE_CHECKING:
    import torch

Logits = NDArray[np.float32]
Kinds = NDArray[np.int8]
Answers: TypeAlias = Any
"""What a model says of some samples, in their order: logits where a task has them, else as the task documents."""
Truth: TypeAlias = Any
"""What is true of the same samples: their classes where a task has logits, else as the task documents."""


class Task(ABC):
    """A task; `main_metric` (larger is better) chooses the best round.

    `kinds` (classes,) says of each class whether it is seen, locally or globally unseen, or absent; see `Split.kinds`.
    """

    name: ClassVar[str] = ""
    main_metric: ClassVar[str] = ""
    has_logits: ClassVar[bool] = True
    """Whether answers are logits (n, classes), which can be calibrated, and truth is classes (n,)."""

    finds_classes: ClassVar[bool] = False
    """Whether some classes have no labels anywhere, so that a report tells what they were taken for."""
    finds_boxes: ClassVar[bool] = False
    """Whether the network must be a detector."""
    headline: ClassVar[Mapping[str, str]] = {}
    """Test scores that fit the line of a round, each with its label."""

    @abstractmethod
    def predict(self, model: torch.nn.Module, x_batches: Iterable[torch.Tensor]) -> Answers:
        """Give the model's answers for all batches; the model stays as it was."""

    def truth(self, dataset: Dataset, samples: Samples, index: Ints) -> Truth:
        """Give what is true of some samples of one of the data set's splits; default: their classes, -1 unknown."""
        del dataset
        return samples.y[index]

    @abstractmethod
    def answers(self, answers: Answers, truth: Truth, kinds: Kinds) -> Mapping[str, Sequence[Any]]:
        """Return what metrics take, by kind of answers (see `fedssl.metrics.base.register`).

        Samples of unknown truth are left out.
        """

    def client_answers(self, answers: Answers, truth: Truth, index: Ints, offsets: Ints) -> Mapping[str, Sequence[Any]]:
        """Return the same for scores by client, who holds the rows `index[offsets[c]:offsets[c + 1]]`."""
        return {"logits": (ClientRows(answers, truth, index, offsets),)}

    def score(self, answers: Answers, truth: Truth, kinds: Kinds) -> dict[str, float]:
        """Return the metrics; NaN where no sample is left."""
        return score(self.name, self.answers(answers, truth, kinds))

    def by_client(
        self, answers: Answers, truth: Truth, index: Ints, offsets: Ints, kinds: Kinds
    ) -> dict[str, NDArray[np.float64]]:
        """Return each client's metrics (clients,), `main_metric` among them; NaN for one without samples."""
        del kinds
        return score_clients(self.name, self.client_answers(answers, truth, index, offsets))

    def by_class(self, logits: Logits, y: Ints) -> Logits:
        """Give the logits with column c for class c, which they have unless a task finds classes itself."""
        del y
        return logits


def inputs(dataset: Dataset, samples: Samples, index: Ints, size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Give samples of one of the data set's splits as models take them, `size` at a time."""
    import torch

    for start in range(0, len(index), size):
        x = torch.from_numpy(samples.x[index[start : start + size]]).to(device)
        yield model_input(x, dataset.mean, dataset.std, dataset.limit)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put the model into eval mode, so that no buffer changes; then restore every module's mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


TASKS: Registry[Task] = Registry("task", "fedssl.tasks")
register = TASKS.register
