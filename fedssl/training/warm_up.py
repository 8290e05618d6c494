"""Supervised weights to begin with, trained once for all runs that ask for the same and kept in the cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fedssl.config import ConfigError
from fedssl.data.cache import cache_directory, replace_whole
from fedssl.data.views.client_data import ClientData
from fedssl.federation import ServerState, State
from fedssl.files import expanded
from fedssl.runtime import precision_of
from fedssl.training.detector import ANCHORS, BACKBONE, HEAD, is_finite, part_of

FIELD = "method.warm_up_weights"
AUTO = "auto"
FILE_HELP = (
    "`auto`: train the warm-up once and keep it in the cache; empty: train it; FILE: as `auto`, but from a run's "
    "model.safetensors, without a neck it lacks, and without its head if that is for other classes; with "
    "method.warm_up=0 it is the first model as it is"
)
SCORE = "warm_up_score."
"""Part of `ServerState.extra`: scores after the warm-up."""
_FORMAT = 2
PACKAGE = Path(__file__).parents[1]
_MODEL, _EXTRA = "model/", "extra/"


def code_of(method: type) -> str:
    """Name the class whose code warms up; all methods of this package share theirs, which goes by `_source`."""
    return "" if method.__module__.startswith("fedssl.methods.") else f"{method.__module__}.{method.__qualname__}"


def identity(data: ClientData, model: torch.nn.Module, options: Mapping[str, Any], seed: int) -> str:
    """Return a hash that is equal for warm-ups with the same samples, first weights, options, precision and seed."""
    digest = hashlib.sha256()
    place = [
        _FORMAT,
        _source(),
        torch.__version__,
        data.device.type,
        precision_of(model),
        torch.backends.cpu.get_cpu_capability(),
    ]
    digest.update(json.dumps([*place, data.dataset.key, data.flip, dict(options), seed], sort_keys=True).encode())
    digest.update(data.labelled.tobytes())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cached(key: str, make: Callable[[], ServerState], device: torch.device) -> ServerState:
    """Return `make`'s state from the cache, made now if it is not there or cannot be read. Raises ConfigError.

    A state that is not finite is not kept.
    """
    path = cache_directory() / f"warm-up-{key}.safetensors"
    with contextlib.suppress(OSError, ValueError):
        return _read(path, device)
    state = make()
    if is_finite({**state.model, **state.extra}):
        replace_whole(path, lambda place: _write(place, state))
    return state


def warm_up_scores(server: ServerState) -> dict[str, float]:
    """Return the scores after the warm-up that the state holds."""
    return {name.removeprefix(SCORE): float(t) for name, t in server.extra.items() if name.startswith(SCORE)}


def read_weights(path: str, wanted: State, *, whole: bool) -> State:
    """Return a model's tensors from a safetensors file: all with `whole`, else of the parts that it holds.

    Empty and `auto` name no file, and give none.

    A head of other shapes, for other classes, is left out, and so are anchors, which go by the data; backbone, and a
    neck that is there, must fit.
    Raises ConfigError on `method.warm_up_weights`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if path in ("", AUTO):
        return {}
    try:
        tensors = load(expanded(path).read_bytes())
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ConfigError(FIELD, path, f"`{AUTO}`, empty or a safetensors file that can be read ({reason})") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    unfit = [name for name, tensor in wanted.items() if shapes.get(name) != tuple(tensor.shape)]
    needed = {part_of(name) for name in tensors} - {HEAD} | {BACKBONE}
    for name in unfit:
        if whole or part_of(name) in needed:
            part = "model" if whole else part_of(name)
            raise ConfigError(FIELD, path, f"all tensors of this {part} ({name} is missing or of another shape)")
    left_out = {part_of(name) for name in unfit}
    taken = [name for name in wanted if part_of(name) not in left_out and (whole or name != ANCHORS)]
    return {name: tensors[name].to(wanted[name]) for name in taken}


@functools.cache
def _source() -> str:
    """Return a hash of this package's code, so that a warm-up by other code is another one."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _read(path: Path, device: torch.device) -> ServerState:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    # Copied: a view of the file's bytes has another alignment, which would change the last bits of sums.
    state = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
    parts = [{k[len(p) :]: t for k, t in state.items() if k.startswith(p)} for p in (_MODEL, _EXTRA)]
    return ServerState(*parts)


def _write(place: Path, state: ServerState) -> None:
    from safetensors.torch import save

    tensors = {_MODEL + name: tensor for name, tensor in state.model.items()}
    tensors |= {_EXTRA + name: tensor for name, tensor in state.extra.items()}
    place.write_bytes(save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))
