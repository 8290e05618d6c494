"""A made-up run directory, as the engine would leave it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal")
MakeRun = Callable[..., Path]


def _record(round_: int, rng: np.random.Generator, clients: int, lift: float) -> dict[str, Any]:
    accuracy = 0.85 + lift - 0.6 * np.exp(-round_ / 4)
    by_client = {
        str(k): {"accuracy": float(np.clip(accuracy + rng.normal(0, 0.07), 0, 1)), "loss": 0.5} for k in range(clients)
    }
    scores = {"accuracy": accuracy, "macro_f1": accuracy - 0.02, "loss": 1.4 - accuracy}
    return {
        "round": round_,
        "seconds": 1.2 + rng.random(),
        "cohort": list(range(clients)),
        "failed": {},
        "bytes_up": 2_000_000,
        "bytes_down": 3_000_000,
        "train": {
            "loss": 2.2 - accuracy,
            "pseudo_mask_rate": accuracy - 0.2,
            "pseudo_precision": 0.8 + round_ / 100,
            "pseudo_coverage": accuracy - 0.1,
        },
        "test": {**scores, "ece": 0.05, "brier": 0.2, "uncalibrated_ece": 0.12},
        "validation": {"accuracy": accuracy - 0.01 - (0.05 if round_ == 12 else 0), "loss": None},
        "clients": by_client,
    }


def _write_split(path: Path, rng: np.random.Generator, clients: int, classes: tuple[str, ...]) -> None:
    parts = [rng.choice(len(classes), size=40, p=rng.dirichlet([0.5] * len(classes))) for _ in range(clients)]
    truth = np.concatenate(parts)
    known = rng.random(len(truth)) < 0.15
    label = np.where(known, truth, -1)
    truth = np.where(~known & (rng.random(len(truth)) < 0.1), -1, truth)
    np.savez(
        path,
        train_index=np.arange(len(truth)),
        train_offsets=np.arange(clients + 1) * 40,
        label=label,
        truth=truth,
        class_names=np.array(classes),
        dropped=np.arange(7),
    )


def _reliability(rng: np.random.Generator) -> dict[str, Any]:
    edge = (np.arange(15) + 0.5) / 15
    count = [0, 0, 3, *np.round(4 * np.exp(np.arange(12) / 2)).astype(int).tolist()]

    def bins(gap: float) -> dict[str, list[float]]:
        accuracy = np.clip(edge - gap + rng.normal(0, 0.02, 15), 0, 1)
        return {"confidence": edge.tolist(), "accuracy": accuracy.tolist(), "count": count}

    return {"uncalibrated": bins(0.12), "calibrated": bins(0.01)}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        name: str = "run",
        *,
        seed: int = 0,
        method: str = "fixmatch",
        lift: float = 0.0,
        clients: int = 10,
        rounds: int = 12,
        classes: tuple[str, ...] = CLASSES,
        options: dict[str, Any] | None = None,
    ) -> Path:
        directory, rng = tmp_path / name, np.random.default_rng(seed)
        directory.mkdir()
        config = {
            "method": {"name": method, "lr": 0.03, **(options or {})},
            "data": {"name": "fashion_small"},
            "model": {"name": "resnet"},
            "personalization": {"name": "finetune"},
            "engine": {"name": "ray", "workers": seed},
            "rounds": rounds,
            "clients": clients,
            "seed": seed,
            "out": str(directory),
            "method_source": "",
        }
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
        records = [_record(i, rng, clients, lift) for i in range(1, rounds + 1)]
        for values in records[-1]["clients"].values():
            values["personal_accuracy"] = min(1.0, values["accuracy"] + 0.06)
        records[-1]["test"]["personal_accuracy"] = records[-1]["test"]["accuracy"] + 0.05
        if rounds > 3:
            records[2]["failed"] = {"3": "Traceback\nValueError: loss is nan"}
            records[3]["failed"] = {"3": "Traceback\nValueError: loss is nan"}
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (directory / "metrics.jsonl").write_text(lines)
        rows = [
            {"round": r["round"], "client": int(k), "num_test": 50, **values}
            for r in records
            for k, values in r["clients"].items()
        ]
        pd.DataFrame(rows).to_parquet(directory / "clients.parquet")
        _write_split(directory / "split.npz", rng, clients, classes)
        (directory / "reliability.json").write_text(json.dumps(_reliability(rng)))
        (directory / "environment.json").write_text(json.dumps({"python": "3.11.9", "cores": 2}))
        final = {"round": rounds, **records[-1]["test"]}
        best_round = max(rounds - 1, 1)
        best = {"round": best_round, **records[best_round - 1]["test"]}
        spread = {"mean": 0.8, "std": 0.05, "p10": 0.72, "min": 0.7, "max": 0.9, "gini": 0.03}
        summary = {"status": "done", "final": final, "best": best, "clients": spread}
        (directory / "summary.json").write_text(json.dumps(summary))
        return directory

    return make


def _own(scores: dict[str, Any] | None) -> dict[str, Any]:
    return {f"personal_{name}": (scores or {})[name] for name in ("accuracy", "loss") if name in (scores or {})}


@pytest.fixture
def make_personal_run(make_run: MakeRun) -> MakeRun:
    """A run that scores the clients' own models alone, as with `personalization=local_head`."""

    def make(name: str = "run", **choices: Any) -> Path:
        directory = make_run(name, **choices)
        records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        for record in records:
            record |= {split: _own(record[split]) for split in ("test", "validation")}
            record["clients"] = {client: _own(scores) for client, scores in record["clients"].items()}
        (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        for file in ("clients.parquet", "reliability.json"):
            (directory / file).unlink()
        summary = json.loads((directory / "summary.json").read_text())
        summary |= {which: {"round": summary[which]["round"], **_own(summary[which])} for which in ("final", "best")}
        (directory / "summary.json").write_text(json.dumps({**summary, "main_metric": "personal_accuracy"}))
        return directory

    return make
