"""One seed gives independent generators, keyed by what they are for and never by call order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Rng:
    """Source of generators for one place of the run.

    Two calls with equal (seed, round_, client, purpose, epoch) give the same stream on every engine,
    whatever ran before.
    """

    seed: int
    round_: int = 0
    client: int = -1

    def at(self, *, round_: int | None = None, client: int | None = None) -> Rng:
        """Give the same source for another round or client."""
        return replace(
            self,
            round_=self.round_ if round_ is None else round_,
            client=self.client if client is None else client,
        )

    def key(self, purpose: str, epoch: int = 0) -> int:
        """Give a 64-bit key; augmentation hashes it with the sample's index."""
        text = f"{self.seed}/{purpose}/{self.round_}/{self.client}/{epoch}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    def numpy(self, purpose: str, epoch: int = 0) -> np.random.Generator:
        """Give a numpy generator."""
        return np.random.default_rng(self.key(purpose, epoch))

    def torch(self, purpose: str, epoch: int = 0) -> torch.Generator:
        """Give a torch generator on the CPU."""
        import torch

        return torch.Generator().manual_seed(self.key(purpose, epoch) >> 1)
