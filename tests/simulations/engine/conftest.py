from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations.run import Result, simulate

SMALL = ["data=digits", "model=resnet", "model.width=4", "rounds=3", "clients=4", "labels.count=5"]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests; executors that find it running leave it running."""
    import ray

    from simulations.engine.ray import start_ray

    start_ray(3, "")
    yield
    ray.shutdown()


@pytest.fixture
def run_small(tmp_path: Path) -> Any:
    """Give a function that runs a small experiment on an engine and gives its result."""

    def run(*overrides: str, engine: str = "inline", workers: int = 1) -> Result:
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        given = {text.split("=")[0] for text in overrides}
        small = [text for text in SMALL if text.split("=")[0] not in given]
        return simulate([*small, *overrides, f"engine={engine}", f"engine.workers={workers}", f"out={out}"])

    return run
