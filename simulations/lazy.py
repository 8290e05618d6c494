"""Defers a slow import until it is first used, so that errors and help appear at once."""

from __future__ import annotations

import importlib.util
import sys
import types


class _Deferred(importlib.util._LazyModule):  # type: ignore[name-defined, misc]
    """A lazy module that a second `import` statement does not wake: that only reads `__spec__`."""

    def __getattribute__(self, name: str) -> object:
        if name == "__spec__":
            return types.ModuleType.__getattribute__(self, name)
        return super().__getattribute__(name)


def defer(name: str) -> None:
    """Put a module into `sys.modules` that loads itself when an attribute is first asked for."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    object.__setattr__(module, "__class__", _Deferred)
