"""What runs many clients on one machine or a Ray cluster."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
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


def _claim(name: str, root: Path) -> None:
    """See that a package beside this one can be imported, though a user's own file of that name lies before it.

    Raises ImportError if the user's is already imported.
    """
    own = root / name / "__init__.py"
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    origin = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
    if not own.exists() or (origin is not None and Path(origin).resolve() == own):
        return
    if module is not None:
        raise ImportError(
            f"fedssl has a package {name!r} of its own, which {origin} hides: rename that file", name=name
        )
    spec = importlib.util.spec_from_file_location(name, own)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


for _name in ("fedssl", "clients", "server"):
    _claim(_name, Path(__file__).resolve().parent.parent)
