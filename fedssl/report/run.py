"""A run directory as it lies on disk, read leniently: a stopped run lacks some of its files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedssl.config import ConfigError
from fedssl.metrics.base import metric_of, sort_key

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
OPEN_WORLD = "open_world.json"
METHOD = "method.json"


@dataclass(frozen=True)
class Run:
    """What a run left behind; `records` is its journal by round, `missing` names absent files."""

    directory: Path
    config: Record
    records: list[Record]
    environment: Record = field(default_factory=dict)
    summary: Record = field(default_factory=dict)
    reliability: Record = field(default_factory=dict)
    open_world: Record = field(default_factory=dict)
    method: Record = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Give done, stopped or failed; `unfinished` when the run left no summary."""
        return str(self.summary.get("status") or "unfinished")

    def choice(self, group: str) -> str:
        """Give the name chosen for a config group."""
        return choice(self.config, group)

    @property
    def main_metric(self) -> str:
        """Give the name of the metric that sums the run up; `personal_` where no global model is scored."""
        if self.summary.get("main_metric"):
            return str(self.summary["main_metric"])
        scored = [record.get("test") or {} for record in self.records]
        names = {name for test in scored for name in test} | set(self.summary.get("final") or {})
        known = [each for each in names if metric_of(each).sums_up]
        return min(known, key=sort_key, default="accuracy")


def choice(config: Record, group: str) -> str:
    """Give the name chosen for a group of a configuration, or `unknown`."""
    value = config.get(group)
    return str(value.get("name", "unknown") if isinstance(value, dict) else value or "unknown")


def read(directory: Path) -> Run:
    """Read a run directory. Raises ConfigError if it is none, or a file of it cannot be read."""
    import yaml

    directory = Path(directory)
    journal, config = directory / "metrics.jsonl", directory / "config.yaml"
    if not (journal.is_file() and config.is_file()):
        raise ConfigError("report", str(directory), "a run directory (metrics.jsonl and config.yaml)")
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict):
        raise ConfigError("report", str(config), "a YAML mapping")
    names = ("environment.json", "summary.json", "reliability.json", OPEN_WORLD, METHOD)
    parts = {name.removesuffix(".json"): _read_object(directory / name) for name in names}
    records = _read_journal(journal)
    is_open = any("accuracy_seen" in (record.get("test") or {}) for record in records)
    optional = {METHOD} if is_open else {METHOD, OPEN_WORLD}
    files = [name for name in (*names, "split.npz", "clients.parquet") if name not in optional]
    missing = tuple(name for name in files if not (directory / name).is_file())
    return Run(directory, values, records, **parts, missing=missing)


def _read_object(path: Path) -> Record:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError("report", str(path), "a JSON object")
    return value


def _read_journal(path: Path) -> list[Record]:
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    by_round: dict[int, Record] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            by_round[int(record["round"])] = record
        except (ValueError, TypeError, KeyError):
            # A killed run may have been writing its last line.
            if line.strip() and number < len(lines):
                allowed = f"one JSON object with a round a line (line {number} is not)"
                raise ConfigError("report", str(path), allowed) from None
    return [by_round[key] for key in sorted(by_round)]


def number(value: object) -> float:
    """Give a finite number as float and anything else as NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def rounds_table(records: list[Record]) -> pd.DataFrame:
    """Give the journal in long form: round, split, metric, value; nulls are left out.

    `split` is train, validation or test, or `cost` for seconds, server_seconds, bytes_up and bytes_down.
    """
    import pandas as pd

    rows: list[tuple[int, str, str, float]] = []
    for record in records:
        cost = {name: record.get(name) for name in ("seconds", "server_seconds", "bytes_up", "bytes_down")}
        parts = {name: record.get(name) or {} for name in ("train", "validation", "test")}
        for split, values in {**parts, "cost": cost}.items():
            rows += [(int(record["round"]), split, key, number(v)) for key, v in values.items()]
    table = pd.DataFrame(rows, columns=["round", "split", "metric", "value"])
    return table.astype({"round": int, "value": float}).dropna(subset=["value"])


def curve(table: pd.DataFrame, split: str, metric: str) -> pd.Series[float]:
    """Give one metric of one split by round, from `rounds_table`."""
    chosen = table[(table["split"] == split) & (table["metric"] == metric)]
    values: pd.Series[float] = chosen.set_index("round")["value"]
    return values


def clients_table(run: Run) -> pd.DataFrame:
    """Give one row a client and evaluation (round, client, metrics), from parquet or journal. Raises ConfigError."""
    import pandas as pd

    path = run.directory / "clients.parquet"
    if path.is_file():
        try:
            # Not by its path: pyarrow takes none that is no UTF-8.
            return pd.read_parquet(BytesIO(path.read_bytes()))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            allowed = f"a Parquet file; without it, the report is made from the journal ({reason})"
            raise ConfigError("report", str(path), allowed) from None
    rows = [
        {"round": int(record["round"]), "client": int(client)}
        | {name: number(value) for name, value in (values or {}).items()}
        for record in run.records
        for client, values in (record.get("clients") or {}).items()
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame({"round": [], "client": []}, dtype=int)


def last_by_client(table: pd.DataFrame, metric: str) -> pd.Series[float]:
    """Give a metric by client, at the last evaluation that scored it; empty if none did."""
    import pandas as pd

    if metric not in table.columns:
        return pd.Series(dtype=float)
    scored = table.dropna(subset=[metric])
    last = scored[scored["round"] == scored["round"].max()]
    values: pd.Series[float] = last.set_index("client")[metric].astype(float)
    return values
