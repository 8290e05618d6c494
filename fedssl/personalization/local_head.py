"""Every client its own head."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.personalization.base import PersonalizationHook, register


@register("local_head")
@dataclass
class LocalHead(PersonalizationHook):
    """Shares the backbone alone; the head trains with it and never leaves the client.

    Source: FedPer (Arivazhagan et al. 2019); kept heads as in FedRep (Collins et al. 2021), which
    trains head and body in turn, while here the method trains both as it always does.
    """

    def keeps(self, name: str) -> bool:
        """Keep the tensors of the head."""
        return name.startswith("head.")
