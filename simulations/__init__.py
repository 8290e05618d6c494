"""What runs many clients on one machine or a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.run import Result, simulate

__all__ = ["Result", "simulate"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, since the command line must answer before torch is there.
    if name in __all__:
        from simulations import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
