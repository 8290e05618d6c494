"""No personalization."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.personalization.base import PersonalizationHook, register


@register("none")
@dataclass
class NoPersonalization(PersonalizationHook):
    """Leaves every client with the global model."""
