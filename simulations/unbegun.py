"""Takes a run that never began off the disk, so that the same command works once the cause is mended."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITTEN = (
    *("config.yaml", "environment.json", "split.npz", "metrics.jsonl", "clients.parquet", "summary.json"),
    *("model.safetensors", "model.json", "method.json", "reliability.json", "open_world.json", "checkpoint"),
    *("figures", "report.html", "tensorboard", "mlflow"),
)
"""All that a run writes into its directory."""


def standing(out: str) -> set[Path]:
    """Return the folders that are there already of those that a run into `out`, or without it into `runs`, is in."""
    path = Path(out or "runs")
    return {place for place in (path, *path.parents) if place.exists()}


@contextmanager
def nothing_left(directory: Path, before: set[Path]) -> Iterator[None]:
    """Take what a run wrote away again if it fails before it has begun, with the folders that were not there `before`.

    Only for a directory that was empty, and that no other process writes to.
    """
    try:
        yield
    except Exception as error:
        if not _has_begun(directory, error):
            _clear(directory, before)
        raise


def _has_begun(directory: Path, error: Exception) -> bool:
    """Say whether there is something to keep: a round, or a first round that clients failed in."""
    journal = directory / "metrics.jsonl"
    if journal.exists() and journal.stat().st_size:
        return True
    # The split is written when the server is ready for its first round; an engine may break down in it.
    return (directory / "split.npz").exists() and type(error).__name__ != "EngineError"


def _clear(directory: Path, before: set[Path]) -> None:
    """Remove what a run writes, and the folders that were made for it; what else is there stays."""
    for path in (directory / name for name in WRITTEN):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for path in (directory, *directory.parents):
            if path in before:
                break
            path.rmdir()
