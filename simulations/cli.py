"""The `fedssl` command."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from fedssl.config import ConfigError, nearest
from fedssl.progress import listening
from simulations.engine.start import THREADS, kill_started
from simulations.failures import show_failure
from simulations.lazy import defer
from simulations.streams import outlast_readers

if TYPE_CHECKING:
    from simulations.progress import Display

HELP = """\
fedssl: federated semi-supervised learning

  fedssl run [KEY=VALUE ...]           one experiment; -m for every combination of comma-separated values
  fedssl run experiment=NAME           a preset
  fedssl run resume=DIR                go on with a run that was stopped
  fedssl split [KEY=VALUE ...]         only build and draw the split
  fedssl report DIR [DIR ...]          (re)build a report; several runs are compared
  fedssl pretrain [KEY=VALUE ...]      a backbone trained without labels, for model.weights=FILE
  fedssl predict RUN --data PATH       a trained model on new images
  fedssl list [GROUP | KEY=CHOICE]     what there is to choose, and its options
  fedssl --version                     the version

Each takes --help. An example: fedssl run method=fixmatch data=digits rounds=5
"""

Command = Callable[[Sequence[str]], int]


def commands() -> dict[str, Command]:
    """Give all commands by name."""
    from simulations import commands as module

    return {
        "run": module.run,
        "split": module.split,
        "report": module.report,
        "predict": module.predict,
        "pretrain": module.pretrain,
        "list": module.list_choices,
    }


def main(argv: Sequence[str]) -> int:
    """Run one command and give its exit code: 0 done, 1 failed in a run, 2 wrong input, 130 stopped."""
    defer("torch")
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(HELP, end="")
            return 0
        if argv[0] == "--version":
            print("fedssl", version("fedssl"))
            return 0
        known = commands()
        if argv[0] not in known:
            raise ConfigError("command", argv[0], f"one of {', '.join(known)}", nearest(argv[0], known))
        _check_folder()
        with listening(_show):
            return known[argv[0]](argv[1:])
    except KeyboardInterrupt:
        print("fedssl: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        show_failure(error)
        return 2 if isinstance(error, ConfigError) else 1


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        allowed = f"one that is there; change to another ({error.strerror})"
        raise ConfigError("current folder", os.environ.get("PWD", ""), allowed) from None


def _show(stage: str, done: int, total: int) -> None:
    """Show how far the data are decoded; a run that has begun shows its own stages."""
    _display().stage(stage, done, total)


@cache
def _display() -> Display:
    from rich.console import Console

    from simulations.progress import Display

    return Display(Console(stderr=True, soft_wrap=True))


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


def entry() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    outlast_readers(sys.argv[1:])
    # Clients may run in this process: a crash in native code tells its place at least.
    if sys.stderr is not None:
        faulthandler.enable()
    code = main(sys.argv[1:])
    if any(map(_is_left_over, threading.enumerate())):
        leave(code)
    sys.exit(code)


def _is_left_over(thread: threading.Thread) -> bool:
    """Say whether a thread would keep the process: of an interrupted Flower runtime, a client, a Ray that starts."""
    return thread is not threading.main_thread() and (not thread.daemon or thread.name.startswith(THREADS))


def leave(code: int) -> None:
    """End at once, with what a Ray that still starts has begun."""
    kill_started()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
