"""SSFL: alternate training of a detector; clients learn from pseudo-boxes, the server from its labels.

SemiFL (Diao et al., NeurIPS 2022) with a local moving average as labeller is the method that FedSTO begins from
(Kim et al., NeurIPS 2023, section 4 and appendices H and L). The server trains alone first (warm-up); then, each round,
clients train on their pictures, their answers are averaged, and the server trains on its own labels again. A client's
labelled pictures, if it has any, train on their labels: with `labels=asis` this is supervised federated learning.
Paper: momentum, weight decay and clipping are not given; the moving average goes by steps, as one by rounds that
begins anew each round would hardly move.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.views.client_data import ClientData
from fedssl.diagnostics import example_detections
from fedssl.federation import Memory, Payload, ServerState, State, Step, Update
from fedssl.losses.base import Counts, add
from fedssl.losses.detection import LossSettings, pseudo_loss
from fedssl.losses.labelled import scene_loss
from fedssl.methods.base import Method, register
from fedssl.models.ema import ema_alpha, update_ema
from fedssl.progress import report_progress
from fedssl.rng import Rng
from fedssl.training import detector as steps
from fedssl.training.detector import EVERYTHING, LocalModels, Phase, Supervised
from fedssl.training.sgd import SGD
from fedssl.training.steps import check_server_data, load, snapshot
from fedssl.training.warm_up import AUTO, FILE_HELP, SCORE, cached, code_of, identity, read_weights, warm_up_scores

MOMENTUM, FOUND = "momentum.", "found."
"""Parts of `ServerState.extra`: the server's optimiser, and boxes found before and after the warm-up."""
EMA = "ema."
"""Part of a client's memory: its teacher, where that outlives the round."""


@register("ssfl")
@dataclass
class SSFL(Method):
    """Trains a detector on pseudo-boxes at the clients and on labels at the server, in turn."""

    epochs: int = option(1, "local epochs a round", low=1)
    server_epochs: int = option(1, "epochs of the server a round", low=0)
    batch_size: int = option(8, "pictures a step, at the clients and at the server", low=1)
    lr: float = option(0.01, "learning rate of SGD, constant", above=0)
    momentum: float = option(0.937, "momentum; a client's begins anew each round", low=0, below=1)
    weight_decay: float = option(5e-4, "L2 penalty on weights, not on biases and batch norm", low=0)
    clip: float = option(10.0, "largest norm of a gradient; 0 = any", low=0)
    server_optimizer: str = option("kept", "the server's momentum from round to round", choices=("kept", "fresh"))
    server_average: float = option(
        0.0,
        "decay a step of a moving average of the server's weights, begun anew each time it trains, which it sends in "
        "place of the last step's; 0 = off (paper)",
        low=0,
        below=1,
    )
    client_average: float = option(
        0.0,
        "decay a step of a moving average of a client's weights, begun anew each round, which it sends in place of the "
        "last step's; 0 = off (paper)",
        low=0,
        below=1,
    )
    warm_up: int = option(60, "epochs of the server before the first round (T0; paper: 50)", low=0)
    warm_up_ramp: int = option(100, "first steps of the warm-up, over which the learning rate rises", low=0)
    warm_up_weights: str = option(AUTO, FILE_HELP, path=True, words=(AUTO,), local=True)
    anchors: str = option(
        "server", "the nine box sizes: k-means of the server's boxes, or COCO's", choices=("server", "coco")
    )
    labeller: str = option(
        "ema",
        "who finds pseudo-boxes: a moving average of the client's model, or the model sent; `none`: no client trains",
        choices=("ema", "global", "none"),
    )
    ema_alpha: float = option(
        0.0, "decay of the moving average a step (paper: 0.999); 0 = 0.999^(156/steps)", low=0, below=1
    )
    ema_reset: bool = option(True, "the moving average begins anew with each round's model")
    tau1: float = option(0.1, "score from which on a pseudo-box is no background", low=0, high=1)
    tau2: float = option(0.6, "score above which a pseudo-box is as good as a label", low=0, high=1)
    nms_score: float = option(0.1, "least score of a pseudo-box", low=0, high=1)
    nms_iou: float = option(0.65, "overlap of two boxes of a class from which on the lesser is dropped", low=0, high=1)
    max_boxes: int = option(100, "most pseudo-boxes a picture", low=1)
    pseudo_weight: float = option(1.0, "weight of the loss on pseudo-boxes", low=0)
    box_weight: float = option(0.05, "weight of the boxes' place and size in the loss", low=0)
    class_weight: float = option(0.3, "weight of the classes", low=0)
    object_weight: float = option(0.7, "weight of the objectness", low=0)
    obj_target: str = option(
        "ciou", "objectness of a label: its overlap with the box found, or 1", choices=("ciou", "one")
    )
    box_loss: str = option("ciou", "loss of a box", choices=("ciou", "smooth_l1"))
    focal: float = option(0.0, "exponent of a focal loss instead of cross-entropy; 0 = cross-entropy", low=0)
    mosaic: bool = option(False, "strong views join four pictures; for large sets")

    tasks: ClassVar[tuple[str, ...]] = ("detection",)
    personalizations: ClassVar[tuple[str, ...]] = ("none", "local_norm", "local_head", "local_only")
    scores_trained_model: ClassVar[bool] = True
    defaults: ClassVar[tuple[str, ...]] = (
        "data=shapes_synthetic",
        "model=detector",
        "partition=natural",
        "labels=none",
        "clients=3",
        "validation=0",
        "evaluation.every=5",
        "evaluation.batch_size=32",
        # Where nobody answers the server still trains on its labels.
        "min_answers=0",
    )

    def __post_init__(self) -> None:
        if self.tau2 < self.tau1:
            raise ConfigError("method.tau2", self.tau2, f"at least method.tau1={self.tau1:g}")

    def phase(self, step: Step) -> Phase:
        """Give what clients train in this round: everything."""
        del step
        return EVERYTHING

    def penalty(self, model: torch.nn.Module, phase: Phase, draws: torch.Generator) -> torch.Tensor | None:
        """Give what is added to the loss of a step, weighted; None for nothing."""
        del model, phase, draws
        return None

    def check(self, model: torch.nn.Module, data: ClientData | None, num_clients: int) -> None:
        """Check that there are a detector and the server's labels. Raises ConfigError."""
        del num_clients
        if not hasattr(model, "decode"):
            raise ConfigError("model", type(model).__name__, f"model=detector with method={self.name}")
        check_server_data(self.name, data)
        if data is not None and not data.dataset.train.boxes_at(data.labelled)[0].size:
            told = f"one that needs no boxes at the server: its {len(data.labelled)} pictures have none"
            raise ConfigError("method", self.name, told)
        read_weights(self.warm_up_weights, model.state_dict(), whole=self.warm_up == 0)

    def init_server(self, model: torch.nn.Module, data: ClientData | None, rng: Rng, num_clients: int) -> ServerState:
        """Give the state after the warm-up: T0 epochs on the server's labels (Algorithm 1, line 1)."""
        self.check(model, data, num_clients)
        assert data is not None
        if self.anchors == "server":
            steps.set_anchors(model, data, rng)
        given = read_weights(self.warm_up_weights, model.state_dict(), whole=self.warm_up == 0)
        model.load_state_dict({**model.state_dict(), **given})
        if self.warm_up_weights == "" or self.warm_up == 0:
            return self._warmed_up(model, data, rng)
        first = snapshot(model)
        key = identity(data, model, self._of_warm_up(), rng.seed)
        state = cached(key, lambda: self._warmed_up(model, data, rng), data.device)
        # A file has an order of its own.
        return ServerState({name: state.model[name] for name in first}, dict(sorted(state.extra.items())))

    def _of_warm_up(self) -> dict[str, Any]:
        names = ("warm_up", "warm_up_ramp", "batch_size", "lr", "momentum", "weight_decay", "clip", "mosaic")
        kept = {name: getattr(self, name) for name in (*names, "server_average")}
        # A class of one's own may use each of its options.
        own = asdict(self) if (code := code_of(type(self))) else {}
        return {**own, **kept, "loss": asdict(self.settings()), "code": code}

    def _warmed_up(self, model: torch.nn.Module, data: ClientData, rng: Rng) -> ServerState:
        """Train, and note what was found before and after."""
        before = example_detections.found(model, data.dataset)
        momentum = self.supervise(
            model, data, rng, self.warm_up, {}, ramp=self.warm_up_ramp, stage="the server's warm-up"
        ).momentum
        scored = example_detections.scores(model, data.dataset, data.kinds)
        extra = {f"{FOUND}before": before, f"{FOUND}after": example_detections.found(model, data.dataset)}
        known = {name: value for name, value in scored.items() if not math.isnan(value)}
        extra |= {f"{SCORE}{name}": torch.tensor(value, dtype=torch.float64) for name, value in known.items()}
        extra |= {f"{MOMENTUM}{name}": tensor for name, tensor in momentum.items()}
        return ServerState(snapshot(model), dict(sorted(extra.items())))

    def uplink(self, server: ServerState, payload: Payload, step: Step) -> State:
        """Wait for the parts that train; for nothing if no client does."""
        del server
        return self._sent(payload.state, self.phase(step))

    def _sent(self, state: State, phase: Phase) -> State:
        if self.labeller == "none":
            return {}
        return {name: t for name, t in state.items() if steps.part_of(name) not in phase.frozen}

    def train_client(
        self, model: torch.nn.Module, payload: Payload, memory: Memory, data: ClientData, step: Step
    ) -> tuple[Update, Memory]:
        """Train on pseudo-boxes and labels. Raises FloatingPointError if over 10 % of the steps have no finite loss."""
        load(model, payload.state)
        phase, pool = self.phase(step), np.sort(np.concatenate([data.labelled, data.unlabelled]))
        if self.labeller == "none" or not len(pool):
            return Update(data.client_id, 0, self._sent(payload.state, phase)), memory
        teacher = copy.deepcopy(model).requires_grad_(False)
        if kept := {name[len(EMA) :]: t for name, t in memory.items() if name.startswith(EMA)}:
            teacher.load_state_dict(kept)
        average = copy.deepcopy(model).requires_grad_(False) if self.client_average else model
        decay = self.ema_alpha or ema_alpha(math.ceil(len(pool) / self.batch_size))
        followers = [(teacher, decay)] if self.labeller == "ema" else []
        followers += [(average, self.client_average)] if average is not model else []
        local, counts = LocalModels(model, teacher, followers), Counts()
        with steps.frozen(model, phase.frozen):
            optimizer = steps.sgd(model, self.lr, self.momentum, self.weight_decay)
            for epoch in range(self.epochs):
                order = step.rng.numpy("order", epoch).permutation(pool)
                self._epoch(local, data, steps.cut(order, self.batch_size), optimizer, step, epoch, counts)
        steps.check_failed(*counts["failed_steps"])
        if average is not model:
            model.load_state_dict(average.state_dict())
        if self.labeller == "ema" and not self.ema_reset:
            memory = {**memory, **{EMA + name: tensor for name, tensor in snapshot(teacher).items()}}
        return Update(data.client_id, len(pool), self._sent(snapshot(model), phase), metrics=counts), memory

    def _epoch(
        self,
        local: LocalModels,
        data: ClientData,
        parts: Sequence[NDArray[np.int64]],
        optimizer: SGD,
        step: Step,
        epoch: int,
        counts: Counts,
    ) -> None:
        """Take a step a batch, after each of which the teacher follows (equation 6)."""
        model = local.model
        phase, key, draws = self.phase(step), step.rng.key("views", epoch), step.rng.torch("penalty", epoch)
        statistics = steps.Statistics(model)
        for i, index in enumerate(parts):
            # The last one alone can be of another size.
            if i == 0 or len(index) == 1:
                steps.set_modes(model, phase.frozen, len(index))
            statistics.keep()
            loss, parts_of_loss = self.client_loss(model, local.teacher, data, index, key + i, counts)
            added = self.penalty(model, phase, draws)
            add(counts, {"skipped_batches": (float(loss is None), 1.0)})
            terms = [term for term in (loss, added) if term is not None]
            # Without any pseudo-box nothing is learnt from the batch; what is added may still train.
            if not terms:
                continue
            total = torch.stack(terms).sum()
            taken = steps.take_step(optimizer, total, self.clip)
            add(counts, {"failed_steps": (float(not taken), 1.0)})
            if not taken:
                statistics.put_back()
                continue
            add(counts, {**parts_of_loss, "loss": (total.item(), 1.0)})
            for follower, decay in local.followers:
                update_ema(follower, model, decay)
        add(counts, {"failed_steps": (0.0, 0.0)})

    def client_loss(
        self,
        model: torch.nn.Module,
        teacher: torch.nn.Module,
        data: ClientData,
        index: NDArray[np.int64],
        key: int,
        counts: Counts,
    ) -> tuple[torch.Tensor | None, Counts]:
        """Give L_s of a batch's labelled pictures + L_u of the others (appendix H.1), and the terms of L_u.

        None instead of a loss if nothing is there to learn from. `counts` gets what was found in the pictures.
        """
        told, losses = np.isin(index, data.labelled), []
        parts: Counts = {}
        if told.any():
            losses.append(scene_loss(model, data, index[told], key, self.settings(), mosaic=self.mosaic)[1])
        if not told.all():
            loss, parts = self._pseudo_loss(model, teacher, data, index[~told], key, counts)
            losses += [] if loss is None else [loss]
        return torch.stack(losses).sum() if losses else None, parts

    def _pseudo_loss(
        self,
        model: torch.nn.Module,
        teacher: torch.nn.Module,
        data: ClientData,
        index: NDArray[np.int64],
        key: int,
        counts: Counts,
    ) -> tuple[torch.Tensor | None, Counts]:
        weak = data.detection_batch(index, key, strong=False)
        found = steps.Filter(self.nms_score, self.nms_iou, self.max_boxes)(teacher, weak.x)
        add(counts, steps.counted(found, data, index, self.tau2))
        strong = data.detection_batch(index, key, strong=True, mosaic=self.mosaic)
        placed = steps.moved(found, strong.transform)
        if not len(placed.boxes):
            return None, {}
        anchors = model.get_buffer("head.anchors")
        loss, parts = pseudo_loss(model(strong.x), placed, anchors, self.tau1, self.tau2, self.settings())
        terms = {f"pseudo_loss_{name}": (float(value), 1.0) for name, value in parts.items()}
        return self.pseudo_weight * loss, terms

    def train_server(
        self,
        server: ServerState,
        model: torch.nn.Module,
        data: ClientData | None,
        updates: Sequence[Update],
        step: Step,
    ) -> ServerState:
        """Train all parts on the server's labels (Algorithm 1, lines 8 and 16)."""
        del updates
        assert data is not None
        load(model, server.model)
        kept = {name.removeprefix(MOMENTUM): t for name, t in server.extra.items() if name.startswith(MOMENTUM)}
        given = kept if self.server_optimizer == "kept" else {}
        phase = self.phase(step)
        made = self.supervise(model, data, step.rng, self.server_epochs, given, phase=phase)
        metrics = {
            **server.metrics,
            "phase": float(phase.number),
            "server_failed_steps": float(made.failed),
            **({} if math.isnan(made.loss) else {"server_loss": made.loss}),
        }
        metrics |= {f"warm_up_{name}": v for name, v in warm_up_scores(server).items() if name.startswith("map")}
        extra = {**server.extra, **{MOMENTUM + name: tensor for name, tensor in made.momentum.items()}}
        return replace(server, model=snapshot(model), extra=extra, metrics=metrics)

    def supervise(
        self,
        model: torch.nn.Module,
        data: ClientData,
        rng: Rng,
        epochs: int,
        momentum: State,
        *,
        phase: Phase = EVERYTHING,
        ramp: int = 0,
        stage: str = "the server",
    ) -> Supervised:
        """Train on labelled scenes in place; the learning rate rises over the first `ramp` steps.

        With `server_average` the model is the average in the end, and the momentum that of the last step.
        Raises FloatingPointError, beginning with `stage`, if over 10 % of the steps have no finite loss.
        """
        optimizer = steps.sgd(model, self.lr, self.momentum, self.weight_decay)
        steps.restore(model, optimizer, momentum)
        losses, tried = [], 0
        average, statistics = copy.deepcopy(model) if self.server_average else model, steps.Statistics(model)
        steps.set_modes(model, (), self.batch_size)
        for tried, (index, key, draws) in enumerate(self._batches(data, rng, epochs, stage), 1):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * min(1.0, tried / max(1, ramp))
            if model.training != (len(index) > 1):
                steps.set_modes(model, (), len(index))
            statistics.keep()
            loss = scene_loss(model, data, index, key, self.settings(), mosaic=self.mosaic)[1]
            added = self.penalty(model, phase, draws)
            if steps.take_step(optimizer, loss if added is None else loss + added, self.clip):
                losses.append(loss.item())
                if average is not model:
                    update_ema(average, model, self.server_average)
            else:
                statistics.put_back()
        momenta = steps.momenta(model, optimizer)
        if average is not model:
            model.load_state_dict(average.state_dict())
        failed = tried - len(losses)
        steps.check_failed(failed, tried, f"{stage}: ")
        return Supervised(momenta, sum(losses) / len(losses) if losses else math.nan, failed)

    def _batches(
        self, data: ClientData, rng: Rng, epochs: int, stage: str
    ) -> Iterator[tuple[NDArray[np.int64], int, torch.Generator]]:
        """Give the samples of each step, the key of their views and the draws of the penalty."""
        for epoch in range(epochs):
            report_progress(stage, epoch, epochs)
            order = rng.numpy("server order", epoch).permutation(data.labelled)
            key, draws = rng.key("server views", epoch), rng.torch("server penalty", epoch)
            for i, index in enumerate(steps.cut(order, self.batch_size)):
                yield index, key + i, draws
        report_progress(stage, epochs, epochs)

    def settings(self) -> LossSettings:
        """Give the weights and choices of the loss."""
        return LossSettings(
            box=self.box_weight,
            class_=self.class_weight,
            objectness=self.object_weight,
            obj_target=self.obj_target,
            box_loss=self.box_loss,
            focal=self.focal,
        )

    def diagnostics(self, server: ServerState, model: torch.nn.Module, data: Sequence[ClientData]) -> dict[str, Any]:
        """Give scores after the warm-up and at the end, `collapsed` if they fell, and pictures with what was found."""
        load(model, server.model)
        rows = {name.removeprefix(FOUND): t.cpu() for name, t in server.extra.items() if name.startswith(FOUND)}
        made = example_detections.outcome(model, data[0].dataset, data[0].kinds, warm_up_scores(server), rows)
        return {**made, "reliable": self.tau2}
