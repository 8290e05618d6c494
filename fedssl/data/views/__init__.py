"""What a client sees of its samples: augmented views, drawn by key."""

from __future__ import annotations

import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    """Return ClientData under its old place, where method files of users import it from; for one version."""
    if name != "ClientData":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fedssl.data.views.client_data import ClientData

    warnings.warn("ClientData is in fedssl.data.views.client_data now", DeprecationWarning, stacklevel=2)
    return ClientData
