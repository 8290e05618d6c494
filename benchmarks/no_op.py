"""A method that does nothing, to measure what carrying messages costs."""

from __future__ import annotations

from dataclasses import dataclass

from fedssl.methods.base import Method, Update, register


@register("no_op")
@dataclass
class NoOp(Method):
    """Sends back what it got."""

    def train_client(self, model, payload, memory, data, step):  # type: ignore[no-untyped-def]
        del model, step
        return Update(data.client_id, 1, payload.state), memory
