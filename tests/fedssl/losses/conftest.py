"""A check of the shapes that losses name in their annotations."""

from __future__ import annotations

import beartype
import jaxtyping
import pytest
import torch


@pytest.fixture
def checked(monkeypatch):
    """Wrap a function so that the shapes in its annotations are checked at run time."""

    def wrap(module, name):
        for kind in ("Float", "Int", "Bool"):
            monkeypatch.setattr(module, kind, getattr(jaxtyping, kind), raising=False)
        monkeypatch.setattr(module, "Tensor", torch.Tensor, raising=False)
        return jaxtyping.jaxtyped(typechecker=beartype.beartype)(getattr(module, name))

    return wrap
