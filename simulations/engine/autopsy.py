"""Finds out how a worker died, from what it left behind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import OutOfMemoryError, RayError

ADVICE = "try engine=inline to see it in one process; if memory is short, fewer engine.workers or smaller batches"
SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
_FRAME = re.compile(r'\s*File "(.*)", line (\d+) in (.*)')


@dataclass(frozen=True)
class Death:
    """What ended a worker, and its Python stack then, the innermost call first; empty where none was written."""

    cause: str
    stack: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Say it in one line, with the place."""
        found = _FRAME.match(self.stack[0]) if self.stack else None
        return self.cause + (f" in {found[3]} ({Path(found[1]).name}:{found[2]})" if found else "")

    @property
    def trace(self) -> str:
        """Return the stack as lines, empty if there is none."""
        return "\n".join(("its Python stack, the innermost call first:", *self.stack)) if self.stack else ""


def autopsy(process: int, error: RayError, oom_kills: int) -> Death:
    """Say how the worker died whose process on this machine is given (0 = elsewhere), as far as can be known."""
    if isinstance(error, OutOfMemoryError):
        return Death("Ray ended it because the machine's memory is nearly full")
    written = _last_words(process)
    if written:
        return written
    if code := re.search(r"exit code (\d+)", str(error)):
        return Death(f"it ended itself with exit code {code[1]}")
    if process and count_oom_kills() > oom_kills:
        return Death("SIGKILL of the system, whose memory is full")
    if process:
        return Death("SIGKILL from outside, or os._exit")
    return Death(f"{type(error).__name__} on another machine")


def count_oom_kills() -> int:
    """Count the processes that the kernel has killed for their memory since it started."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _last_words(process: int) -> Death | None:
    """Read what faulthandler wrote into the worker's log."""
    import ray

    if not process:
        return None
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    texts = [file.read_text(errors="replace") for file in folder.glob(f"worker-*-{process}.err")]
    found = re.search(r"Fatal Python error: (.*)", "\n".join(texts))
    if not found:
        return None
    lines = "\n".join(texts)[found.end() :].splitlines()
    frames = [line.rstrip() for line in lines if _FRAME.match(line)]
    # Below the worker's own call there is only Ray.
    own = next((i for i, line in enumerate(frames) if "/ray/util/" in line or "/ray/_private/" in line), len(frames))
    name = found[1].strip()
    return Death(SIGNALS.get(name, name), tuple(frames[:own]))
