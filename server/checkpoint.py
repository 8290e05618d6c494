"""Snapshots of a run: written atomically, checked when read, the two newest kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from fedssl.config import sha256
from fedssl.federation import Memory, ServerState, State
from fedssl.files import sha256_of, write_atomically

FORMAT = 2
KEPT = 2


class CheckpointError(RuntimeError):
    """No snapshot of a run can be used; the text names each and says why."""


@runtime_checkable
class HoldsMemory(Protocol):
    """A grid in whose process the clients' memories live, so that they can be saved with the run."""

    def memories(self) -> dict[int, Memory]:
        """Give the memory of every client that has one."""

    def restore_memories(self, memories: dict[int, Memory]) -> None:
        """Replace all clients' memories."""


@dataclass
class Snapshot:
    """All that a run needs to go on: state after `round_` rounds, and how long its journal then was."""

    round_: int
    server: ServerState
    aggregator: State = field(default_factory=dict)
    memories: dict[int, Memory] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


def save(directory: Path, snapshot: Snapshot) -> None:
    """Write `directory/round-N`, complete or not at all, and drop all but the newest two. Raises OSError."""
    final = directory / f"round-{snapshot.round_:06d}"
    partial = directory / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        memory_tensors, memory_values = _split(snapshot.memories)
        files = {
            "model.safetensors": snapshot.server.model,
            "extra.safetensors": snapshot.server.extra,
            "aggregator.safetensors": snapshot.aggregator,
            "memory.safetensors": memory_tensors,
        }
        for name, tensors in files.items():
            write_atomically(partial / name, save_tensors(_apart(tensors)))
        meta = {
            "format": FORMAT,
            "round": snapshot.round_,
            "progress": snapshot.progress,
            "memory": memory_values,
            "sha256": {name: sha256_of(partial / name) for name in files},
            # A safetensors file has an order of its own; a method may rely on the model's.
            "names": {name: list(tensors) for name, tensors in files.items()},
        }
        text = json.dumps({"meta": meta, "sha256": sha256(json.dumps(meta, sort_keys=True))})
        write_atomically(partial / "snapshot.json", text.encode())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in sorted(directory.glob("round-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(directory: Path) -> tuple[Snapshot, list[str]]:
    """Give the newest snapshot that is whole, and one line for each newer one refused. Raises CheckpointError."""
    refused: list[str] = []
    for path in sorted(directory.glob("round-*"), reverse=True):
        try:
            return _read(path), refused
        except Exception as error:
            refused.append(f"checkpoint {path.name} refused: {type(error).__name__}: {error}")
    raise CheckpointError("; ".join(refused) or f"{directory} holds no checkpoint")


def _read(path: Path) -> Snapshot:
    content = json.loads((path / "snapshot.json").read_text())
    meta = content["meta"]
    if content["sha256"] != sha256(json.dumps(meta, sort_keys=True)):
        raise ValueError("sha256 of snapshot.json differs")
    if meta["format"] != FORMAT:
        raise ValueError(f"format {meta['format']} is not {FORMAT}")
    tensors: dict[str, State] = {}
    for name, digest in meta["sha256"].items():
        if sha256_of(path / name) != digest:
            raise ValueError(f"sha256 of {name} differs")
        # Copied, so that no tensor is a view of the file's bytes: alignment would change the last bits.
        found = load_tensors((path / name).read_bytes())
        tensors[name] = {k: found[k].clone() for k in meta["names"][name]}
    memories = {int(client): dict(values) for client, values in meta["memory"].items()}
    for name, tensor in tensors["memory.safetensors"].items():
        client, key = name.split("/", 1)
        memories.setdefault(int(client), {})[key] = tensor
    return Snapshot(
        meta["round"],
        ServerState(tensors["model.safetensors"], tensors["extra.safetensors"]),
        tensors["aggregator.safetensors"],
        memories,
        meta["progress"],
    )


def _apart(tensors: State) -> State:
    """Copy tensors, since safetensors refuses two that share memory."""
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def _split(memories: dict[int, Memory]) -> tuple[State, dict[str, dict[str, Any]]]:
    tensors: State = {}
    values: dict[str, dict[str, Any]] = {}
    for client, memory in memories.items():
        for name, value in memory.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{client}/{name}"] = value
            else:
                values.setdefault(str(client), {})[name] = value
    return tensors, values
