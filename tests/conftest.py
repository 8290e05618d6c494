"""What every test runs in: a cache of its own, one torch thread, and a name for Flower."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that rewrites golden runs."""
    parser.addoption("--update-golden", action="store_true", help="store the golden runs anew instead of comparing")


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from simulations.engine.internals import identify

    identify()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDSSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("FLWR_TELEMETRY_ENABLED", "0")
        yield
    torch.set_num_threads(threads)
