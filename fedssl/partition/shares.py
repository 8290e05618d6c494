"""Draws samples for clients that follow the clients' own class shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedssl.data.arrays import apportion
from fedssl.partition.base import Ints, by_owner
from fedssl.rng import Rng

MIN_DRAWN = 20


def draw_to_shares(y: Ints, held: Sequence[Ints], num_classes: int, rng: Rng, purpose: str) -> list[Ints]:
    """Give, for each client, sorted positions in `y` (all known) in the class shares of `held[k]`.

    A client gets len(y) / clients samples, at least 20 if there are so many; none twice, but
    clients may share samples. Unknown classes (-1) in `held` do not count; where all are unknown,
    the draw is uniform.
    """
    wanted = max(len(y) // len(held), min(MIN_DRAWN, len(y)))
    members = by_owner(y, num_classes)
    available = np.array([len(group) for group in members])
    drawn = []
    for client, classes in enumerate(held):
        generator = rng.at(client=client).numpy(purpose)
        counts = np.bincount(classes[classes >= 0], minlength=num_classes)
        quota = class_counts(counts, available, wanted)
        if quota is None:
            drawn.append(np.sort(generator.permutation(len(y))[:wanted]))
        else:
            picks = [
                generator.choice(members[label], quota[label], replace=False, shuffle=False)
                for label in np.flatnonzero(quota)
            ]
            drawn.append(np.sort(np.concatenate([*picks, np.zeros(0, np.int64)])))
    return drawn


def class_counts(counts: Ints, available: Ints, wanted: int) -> Ints | None:
    """Give how many samples of each class follow the shares of `counts`, or None.

    None if no held class is available. Where a class is short, all classes shrink together, down
    to 20 samples in all; below that the short class gives what it has.
    """
    counts = np.where(available > 0, counts, 0)
    if not counts.sum():
        return None
    shares = counts / counts.sum()
    held = counts > 0
    fits = int(np.floor((available[held] / shares[held]).min() + 1e-9))
    total = min(wanted, max(fits, MIN_DRAWN))
    return apportion(shares * total, available)
