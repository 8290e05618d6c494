from __future__ import annotations

from fedssl.losses.base import add


def test_counts_add_up():
    total = {"a": (1.0, 2.0)}
    add(total, {"a": (0.5, 1.0), "b": (3.0, 4.0)})
    assert total == {"a": (1.5, 3.0), "b": (3.0, 4.0)}
