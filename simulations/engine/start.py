"""Starts Ray on this machine, or joins a cluster: checked beforehand, with a deadline, in a thread of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from fedssl.config import ConfigError

START_SECONDS = 120.0
JOIN_SECONDS = 30.0
"""Ray itself would try a silent address for ten minutes."""
CONNECT_SECONDS = 10.0
LOOK_SECONDS = 0.1
THREADS = "fedssl"
"""What the names of threads begin with that must not keep a process that is to end."""

STARTING = f"{THREADS}-ray"

_one_at_a_time = threading.Lock()
_told: list[Any] = []
"""Ray's own way to print, while it is silenced."""


class EngineError(RuntimeError):
    """The engine cannot run clients at all."""


class Closable(Protocol):
    """What is made once Ray runs."""

    def close(self) -> None:
        """End it."""


class RayStart:
    """Ray, and what `make` makes of it, begun by a thread that lives as long: Linux ends Ray's processes with it."""

    def __init__(self, cpus: int, address: str, make: Callable[[], Closable | None]) -> None:
        self.cpus = cpus
        self.address = address
        self._make = make
        self._made: Closable | None = None
        self._error: BaseException | None = None
        self._owns_ray = False
        self._up, self._done, self._left, self._ended = (threading.Event() for _ in range(4))
        self._lock = threading.Lock()
        self._began = time.monotonic()
        # A daemon: Ray's own start cannot be broken off, and must not keep a process that is to end.
        self._thread = threading.Thread(target=self._begin, name=STARTING, daemon=True)
        self._thread.start()

    def poll(self, seconds: float = 0.0) -> Any:
        """Return what was made, None if that takes longer than `seconds`. Raises EngineError or what it failed by."""
        if self._done.wait(seconds):
            if self._error is not None:
                raise self._error
            return self._made
        waited = time.monotonic() - self._began
        limit = CONNECT_SECONDS + JOIN_SECONDS if self.address else START_SECONDS
        if waited > limit and not self._up.is_set():
            if self.address:
                raise EngineError(f"engine.address={self.address!r}: something listens there that is no Ray cluster")
            raise EngineError(f"Ray did not start within {limit:g} s; engine=inline needs no Ray")
        if waited > limit + START_SECONDS:
            raise EngineError(f"the workers did not start within {START_SECONDS:g} s")
        return None

    def result(self) -> Any:
        """Wait for what was made. Raises EngineError or what it failed by."""
        while not self._done.is_set():
            self.poll(LOOK_SECONDS)
        return self.poll()

    def close(self) -> None:
        """End what was made, and Ray if it was begun here; a start that still goes on ends so by itself."""
        with self._lock:
            self._left.set()
            finished = self._done.is_set()
        if finished:
            self._end()
            self._ended.set()
            self._thread.join(1)

    def _begin(self) -> None:
        with _one_at_a_time:
            try:
                self._owns_ray = start_ray(self.cpus, self.address)
                self._up.set()
                if not self._left.is_set():
                    self._made = self._make()
            except BaseException as error:
                self._error = error
            with self._lock:
                self._done.set()
                left = self._left.is_set()
            if left:
                self._end()
                return
        # Not before Ray has ended its processes in its own order: some would stay for a minute.
        self._ended.wait()

    def _end(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None
        if self._owns_ray:
            self._owns_ray = False
            stop_ray()


def start_ray(cpus: int, address: str = "") -> bool:
    """Start Ray with so many CPUs, or join the cluster at `address`; say whether that was to be done.

    A Ray that this process has begun already is used as it is. Raises ConfigError, EngineError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray runs its workers at niceness 15: beside any other process they would hardly move.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        return False
    # `local` is a Ray of our own whatever RAY_ADDRESS says and whatever cluster runs or once ran here.
    where: dict[str, Any] = {"address": reachable(address)} if address else {"address": "local", "num_cpus": cpus}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        with _own_sigterm():
            ray.init(**quiet, **where, job_config=_job_config())
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        cause = f"engine.address={address!r}: {reason}" if address else f"Ray could not start: {reason}"
        advice = "" if address else "; RAY_TMPDIR names the folder that it writes to, engine=inline needs no Ray"
        raise EngineError(cause + advice) from None
    # Ray tells each worker's death in a paragraph of its own; we tell it once, with its cause.
    _told.append(ray._private.worker.print_to_stdstream)
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return True


def kill_started() -> None:
    """End what a start has begun that still goes on as this process ends: Ray's agents would stay for a minute."""
    if "ray" not in sys.modules or not any(thread.name == STARTING for thread in threading.enumerate()):
        return
    try:
        import psutil  # type: ignore[import-untyped]  # Ray brings it
    except ImportError:
        # Ray itself is only being imported, and has begun nothing.
        return
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().children():
            # Its own children could not be found once it is dead, and more could come.
            process.suspend()
        for process in psutil.Process().children(recursive=True):
            process.kill()


def stop_ray() -> None:
    """End Ray, or leave the cluster, and let Ray speak again."""
    import ray

    ray.shutdown()
    if _told:
        ray._private.worker.print_to_stdstream = _told.pop()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: Ray's library puts in its own, which aborts.

    Python lets only the main thread set one, so the C library is asked; the room is enough for its struct anywhere.
    """
    libc, before = ctypes.CDLL(None), ctypes.create_string_buffer(1024)
    libc.sigaction(int(signal.SIGTERM), None, before)
    try:
        yield
    finally:
        libc.sigaction(int(signal.SIGTERM), before, None)


def reachable(address: str) -> str:
    """Return host:port of the cluster at `address`, where something listens. Raises ConfigError, EngineError."""
    from ray._private import services

    if address == "auto":
        try:
            address = services.canonicalize_bootstrap_address("auto")
        except (ConnectionError, ValueError) as error:
            raise EngineError(f"engine.address='auto': no Ray cluster is found here ({error})") from None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError("engine.address", address, "`auto` or host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = f"no Ray cluster answers there ({error})"
        raise EngineError(f"engine.address={address!r}: {reason}; left empty, a Ray is started here") from None
    return address


def _job_config() -> Any:
    """Let workers look for modules where this process does, and not first in its current folder, as Ray would."""
    from ray.job_config import JobConfig

    # Ray puts each in front of the ones before.
    return JobConfig(_py_driver_sys_path=_Fixed(map(os.path.abspath, reversed(sys.path))))


class _Fixed(list[str]):
    """A list that Ray does not add the script's and the current folder to."""

    def extend(self, more: Iterable[str]) -> None:
        """Do nothing."""
