"""What one run came to: `summary.json`, hashes of its weights and memories."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedssl.config import Experiment
from fedssl.federation import ServerState, State
from fedssl.metrics.fairness import spread
from server.journal import Journal, Record


def weights_sha256(server: ServerState) -> str:
    """Give the SHA-256 over sorted name, dtype, shape and little-endian bytes of all tensors of the state."""
    found = hashlib.sha256()
    tensors: State = {**{f"model/{k}": t for k, t in server.model.items()}, **server.extra}
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        found.update(f"{name}|{array.dtype}|{array.shape}|".encode())
        found.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()


def memories_sha256(digests: Mapping[int, str]) -> str:
    """Give the SHA-256 over client ids and the hashes of their memories; of nothing if no client has any."""
    text = "".join(f"{client}:{digests[client]}\n" for client in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()


def summarise(experiment: Experiment, journal: Journal, main_metric: str, facts: Mapping[str, Any]) -> Record:
    """Give the summary of the rounds so far; `facts` are what the journal cannot know."""
    last, best = journal.last(), journal.best(main_metric)
    records = journal.records
    values = [scores.get(main_metric) for scores in (last or {}).get("clients", {}).values()]
    known = [value for value in values if value is not None]
    return {
        "method": experiment.method["name"],
        "data": experiment.data["name"],
        "seed": experiment.seed,
        "rounds": len(records),
        "main_metric": main_metric,
        "final": _scores(last),
        "best": _scores(best),
        "clients": spread(np.asarray(known)) if known else {},
        "bytes_up": sum(record["bytes_up"] for record in records),
        "bytes_down": sum(record["bytes_down"] for record in records),
        "wall_seconds": records[-1]["elapsed"] if records else 0.0,
        "seconds_per_round": statistics.median(r["seconds"] for r in records) if records else 0.0,
        "engine": experiment.engine.name,
        "precision": experiment.precision,
        **facts,
    }


def _scores(record: Record | None) -> Record:
    return {"round": record["round"], **record["test"]} if record and record.get("test") else {}
