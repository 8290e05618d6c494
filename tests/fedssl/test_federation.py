"""A method file of one's own imports all its words from `fedssl.methods.base`."""

from __future__ import annotations

from fedssl import federation
from fedssl.methods import base


def test_the_base_of_methods_hands_on_what_travels():
    for name in ("Average", "Memory", "Payload", "ServerState", "State", "Step", "Update"):
        assert getattr(base, name) is getattr(federation, name)
        assert name in base.__all__
