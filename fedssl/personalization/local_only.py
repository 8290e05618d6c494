"""Every client its own model."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.personalization.base import PersonalizationHook, register


@register("local_only")
@dataclass
class LocalOnly(PersonalizationHook):
    """Shares nothing: each client trains alone from the common initial weights, the floor of every federation."""

    def keeps(self, name: str) -> bool:
        """Keep all tensors."""
        del name
        return True
