"""What a person is told of an error."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable

from fedssl.config import ConfigError

_EXPLAINED = ("RoundFailed", "FederationError", "EngineError", "CheckpointError")
"""By name, since their modules are slow to import."""


def show_warnings(lines: Iterable[str]) -> None:
    """Print what the user must see of what goes on all the same."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def show_failure(error: Exception) -> None:
    """Print one line for what the user or the machine can mend, else the traceback."""
    if isinstance(error, ConfigError):
        # A key may hold a line break; the message is one line all the same.
        print("fedssl:", " ".join(str(error).split()), file=sys.stderr)
    elif isinstance(error, OSError) or type(error).__name__ in _EXPLAINED:
        print(f"fedssl: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
