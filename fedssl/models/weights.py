"""Backbones read from a file."""

from __future__ import annotations

import hashlib

import torch

from fedssl.config import ConfigError
from fedssl.files import expanded

FIELD = "model.weights"
AUTO = "auto"
"""As `model.weights`: weights that a run's start trains and keeps in the cache."""
_BACKBONE = "backbone."


def load_backbone(model: torch.nn.Module, path: str, sha256: str = "") -> None:
    """Replace the network's `backbone.*` tensors by a file's; its head stays. A meta network is only checked.

    Raises ConfigError on `model.weights` if file, hash, names or shapes do not fit.
    """
    found = read_backbone(path, sha256)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(_BACKBONE)}
    if problem := _difference(found, wanted):
        raise ConfigError(FIELD, path, f"of the same backbone as model ({problem})")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def read_backbone(path: str, sha256: str = "") -> dict[str, torch.Tensor]:
    """Give the `backbone.*` tensors of a safetensors file. Raises ConfigError on `model.weights`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if path == AUTO:
        raise ConfigError(FIELD, path, "a file here: only `fedssl run` trains weights of its own")
    try:
        content = expanded(path).read_bytes()
        tensors = load(content)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ConfigError(FIELD, path, f"a safetensors file that can be read here ({reason})") from None
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigError(FIELD, path, f"the file that the run began with (sha256 {sha256[:16]}...)")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(_BACKBONE)}


def _difference(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str:
    """Say in which first tensor two sets differ, or nothing."""
    for name in sorted(found.keys() ^ wanted.keys()):
        return f"{name} is missing" if name in wanted else f"{name} is too much"
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            return f"{name} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    return ""
