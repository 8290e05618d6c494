"""SGD in one fused call a step, without what torch's optimiser objects add around it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch


class SGD:
    """Take the steps of `torch.optim.SGD(fused=True)`, to the bit, from the same `param_groups` and `state`.

    Clients take few and short steps: torch's object, its hooks and its profiler's records cost a tenth of LeNet's.
    It also imports `torch._dynamo`, 170 MB. `state[parameter]["momentum_buffer"]` may be read and set. Schedulers of
    `torch.optim.lr_scheduler` take torch's own class alone.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter] | Sequence[dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
    ) -> None:
        # Not at the top: the command line loads torch only when it is used, which this import would break.
        from torch.optim.sgd import sgd

        self._step = sgd
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]  # type: ignore[dict-item]
        self.state: defaultdict[torch.Tensor, dict[str, torch.Tensor]] = defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or set them to zero."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None if set_to_none or parameter.grad is None else torch.zeros_like(parameter)

    def step(self) -> None:
        """Take one step; a parameter without a gradient stays."""
        with torch.no_grad():
            self._take_step()

    def _take_step(self) -> None:
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            momentum = group["momentum"]
            buffers: list[Any] = [self.state[p].get("momentum_buffer") if momentum else None for p in trained]
            is_first = any(buffer is None for buffer in buffers)
            self._step(
                trained,
                [parameter.grad for parameter in trained],
                buffers,
                fused=True,
                weight_decay=group["weight_decay"],
                momentum=momentum,
                lr=group["lr"],
                dampening=0.0,
                nesterov=group["nesterov"],
                maximize=False,
            )
            if momentum and is_first:
                for parameter, buffer in zip(trained, buffers, strict=True):
                    self.state[parameter]["momentum_buffer"] = buffer
