"""The training loop: network, projector and optimiser, and their state on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedssl.config import ConfigError
from fedssl.files import write_atomically
from fedssl.losses.contrastive import decoupled, nt_xent
from fedssl.models.base import MODELS
from fedssl.models.build import build_model, initialise
from fedssl.pretraining.plan import Plan
from fedssl.pretraining.views import normalise, random_views
from fedssl.rng import Rng
from fedssl.runtime import autocast

LOSSES = {"simclr": nt_xent, "dcl": decoupled}
_DIM = 128
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Learner:
    """A backbone with a projector of two layers, D-D-128, trained by contrast."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.rng, self.epochs_done = plan, Rng(plan.seed), 0
        spec = MODELS.create(plan.model)
        shape, classes = plan.dataset.shape, plan.dataset.num_classes
        self.model = build_model(spec, shape, classes, self.rng.torch("initial weights")).to(plan.device)
        dim = int(self.model.head.in_features)  # type: ignore[union-attr, arg-type]
        projector = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, _DIM))
        initialise(projector, self.rng.torch("projector"))
        self.trained = nn.Sequential()
        self.trained.add_module("backbone", self.model.backbone)  # type: ignore[arg-type]
        self.trained.add_module("projector", projector.to(plan.device))
        self.optimizer = torch.optim.Adam(
            self.trained.parameters(),
            lr=plan.settings.lr,
            weight_decay=plan.settings.weight_decay,
            fused=plan.device.type != "mps",
        )

    def epoch(self) -> float:
        """Train one pass and give the mean loss; a last batch that is not full is left out. Raises ConfigError."""
        plan, number, settings = self.plan, self.epochs_done, self.plan.settings
        order = self.rng.numpy("pre-training order", number).permutation(plan.index)
        generator = self.rng.torch("pre-training views", number)
        size = min(settings.batch_size, len(order))
        steps = len(order) // size
        self.trained.train()
        total = 0.0
        for step in range(steps):
            done = (number * steps + step) / (settings.epochs * steps)
            self.optimizer.param_groups[0]["lr"] = settings.lr * (1 + math.cos(math.pi * done)) / 2
            rows = order[step * size : (step + 1) * size]
            total += self._step(torch.from_numpy(plan.dataset.train.x[rows]), generator)
        if not math.isfinite(total):
            raise ConfigError("lr", settings.lr, f"small enough: the loss of epoch {number + 1} is not a finite number")
        self.epochs_done += 1
        return total / steps

    def _step(self, x: torch.Tensor, generator: torch.Generator) -> float:
        plan = self.plan
        views = random_views(
            torch.cat([x, x]),
            generator,
            flip=plan.flip,
            least_area=plan.settings.area,
            jitter=plan.settings.jitter,
        ).to(plan.device)
        with autocast(plan.precision, plan.device):
            z = self.trained(normalise(views, plan.dataset.mean, plan.dataset.std))
        # Outside autocast, which would multiply the projections in half precision.
        first, second = z.float().chunk(2)
        loss = LOSSES[plan.settings.loss](first, second, plan.settings.temperature)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def backbone(self) -> dict[str, torch.Tensor]:
        """Give the `backbone.*` tensors."""
        return {f"backbone.{name}": tensor for name, tensor in self.model.backbone.state_dict().items()}  # type: ignore[union-attr]

    def save(self, path: Path, history: list[dict[str, float]]) -> None:
        """Write everything that the next epoch needs, atomically. Raises OSError."""
        from safetensors.torch import save

        tensors = {name: tensor.clone().contiguous() for name, tensor in self.trained.state_dict().items()}
        for name, parameter in self.trained.named_parameters():
            for key in _MOMENTS:
                tensors[f"adam.{key}.{name}"] = self.optimizer.state[parameter][key].clone().contiguous()
        about = {"identity": self.plan.identity(), "epochs": str(self.epochs_done), "history": json.dumps(history)}
        write_atomically(path, save(tensors, about))

    def restore(self, path: Path) -> list[dict[str, float]]:
        """Read what `save` wrote and give the history. Raises ConfigError on `out`."""
        tensors, about = _read(path)
        if about.get("identity") != self.plan.identity():
            raise ConfigError("out", str(path), "moved away first: this checkpoint is of other data or options")
        with torch.no_grad():
            for name, tensor in self.trained.state_dict().items():
                tensor.copy_(tensors[name])
            for name, parameter in self.trained.named_parameters():
                # In the parameter's memory layout, as in a training that was never stopped.
                moments = {k: torch.zeros_like(parameter).copy_(tensors[f"adam.{k}.{name}"]) for k in _MOMENTS[1:]}
                self.optimizer.state[parameter] = {"step": tensors[f"adam.step.{name}"].clone(), **moments}
        self.epochs_done = int(about["epochs"])
        history: list[dict[str, float]] = json.loads(about["history"])
        return history


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError("out", str(path), f"a checkpoint that can be read, or moved away ({reason})") from None
