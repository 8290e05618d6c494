"""Initial weights as a pure function of a generator; torch's own would draw from the global one."""

from __future__ import annotations

import math

import torch

from fedssl.models.base import ModelSpec

_HOOK = "after_initialise"


def build_model(
    spec: ModelSpec, shape: tuple[int, ...], num_classes: int, generator: torch.Generator
) -> torch.nn.Module:
    """Give a channels_last network with torch's default initialisation, drawn from `generator`.

    Raises ConfigError for a shape the network cannot take, TypeError for an unknown layer.
    """
    with torch.device("meta"):
        model = spec.build(shape, num_classes)
    initialise(materialise(model), generator)
    return model.to(memory_format=torch.channels_last)


def materialise(model: torch.nn.Module) -> torch.nn.Module:
    """Give a meta network contiguous tensors without values on the CPU, and return it.

    `to_empty` calls `empty_like` on meta tensors, for which torch imports sympy and its own reference operators.
    """
    model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))  # type: ignore[no-untyped-call]
    return model


def initialise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Give each layer torch's default initial weights, drawn from `generator`. Raises TypeError for an unknown one.

    A layer with other starting values sets them in its `after_initialise()`, called once all weights are drawn.
    """
    for name, module in model.named_modules():
        _initialise(name, module, generator)
    for module in model.modules():
        if hasattr(module, _HOOK):
            getattr(module, _HOOK)()


def _initialise(name: str, module: torch.nn.Module, generator: torch.Generator) -> None:
    nn = torch.nn
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        if module.bias is not None:
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
        module.reset_parameters()
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, generator=generator)
    elif not hasattr(module, _HOOK) and [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        raise TypeError(f"{name}: {type(module).__name__} has tensors that build_model cannot initialise")
