"""The run directory as it grows: one line a round, and at the end tables, model and summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from fedssl.files import append_line, sync, write_atomically

Record = dict[str, Any]


class Journal:
    """Writes `metrics.jsonl`, one object a round, and what follows from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "metrics.jsonl"
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        """Add one round; a kill cannot lose it. Raises OSError."""
        record = plain(record)
        append_line(self.path, json.dumps(record, sort_keys=True, allow_nan=False))
        self.records.append(record)

    def sync(self) -> None:
        """Make the rounds so far outlast a power cut, as a checkpoint does. Raises OSError."""
        sync(self.path)

    def cut(self, rounds: int) -> None:
        """Keep the first `rounds` rounds, which is where a checkpoint was taken.

        Raises ValueError if one of them is missing or cannot be read; what comes after them may be torn.
        """
        # Bytes that are no text may stand in the torn part.
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = content.decode("utf-8", "replace").splitlines()
        kept = lines[:rounds]
        self.records = [_read(self.path, number, line) for number, line in enumerate(kept, 1)]
        if len(kept) < rounds:
            raise ValueError(f"{self.path} has {len(kept)} rounds, but a checkpoint was taken after {rounds}")
        write_atomically(self.path, "".join(line + "\n" for line in kept).encode())

    def write_clients(self, counts: Mapping[str, list[int]]) -> None:
        """Rewrite `clients.parquet`: one row a client and evaluation; `counts` are columns by client id."""
        import pandas as pd

        rows = [
            {"round": record["round"], "client": int(client), **values}
            for record in self.records
            for client, values in record.get("clients", {}).items()
        ]
        table = pd.DataFrame(rows, columns=None if rows else ["round", "client"])
        for name, values in counts.items():
            table[name] = [values[client] for client in table["client"]]
        buffer = BytesIO()
        table.to_parquet(buffer, index=False)
        write_atomically(self.directory / "clients.parquet", buffer.getvalue())

    def write_json(self, name: str, values: Any) -> None:
        """Write one JSON file of the run directory; NaN becomes null."""
        text = json.dumps(plain(values), indent=2, sort_keys=True, allow_nan=False)
        write_atomically(self.directory / name, (text + "\n").encode())

    def best(self, metric: str) -> Record | None:
        """Give the round with the highest `metric` on validation, the first of equals; None without any."""
        scored = [record for record in self.records if (record.get("validation") or {}).get(metric) is not None]
        return max(scored, key=lambda record: float(record["validation"][metric]), default=None)

    def last(self) -> Record | None:
        """Give the last round that was scored on test samples."""
        return next((record for record in reversed(self.records) if record.get("test")), None)


def _read(path: Path, number: int, line: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: {error.msg}") from None
    if not isinstance(record, dict) or record.get("round") != number:
        raise ValueError(f"{path}, line {number} is not round {number}")
    return record


def plain(value: Any) -> Any:
    """Give JSON's own types: numpy scalars become numbers, NaN and infinity null, keys text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
