from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toys

from simulations.run import Result, simulate


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests; executors that find it running leave it running."""
    import ray

    from simulations.engine.start import start_ray

    start_ray(3)
    yield
    ray.shutdown()


@pytest.fixture
def run_small(tmp_path: Path) -> Any:
    """Give a function that runs a small experiment on an engine and gives its result."""

    def run(*overrides: str, engine: str = "inline", workers: int = 1) -> Result:
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return simulate([*toys.small(*overrides), f"engine={engine}", f"engine.workers={workers}", f"out={out}"])

    return run
