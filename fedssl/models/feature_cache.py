"""Outputs of a network's frozen part, kept on disk so that they are computed once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.cache import cache_directory, intact, replace_whole, seal
from fedssl.data.views.client_data import ClientData
from fedssl.models.base import Outputs
from fedssl.models.frozen import CutNetwork, is_top
from fedssl.runtime import precision_of

PLAIN = 0
"""The view without augmentation, among the views that a cache keeps."""
_BATCH = 500
_FORMAT = 2
_ATTEMPTS = 3
_ARRAY, _SEAL = "maps.npy", "seal.json"


def plain_features(
    split: CutNetwork, data: ClientData, index: NDArray[np.int64], maps: Maps | None, *, batch_norm: str = "running"
) -> Outputs:
    """Return features and logits of samples without augmentation, float32; the model's buffers stay as they were.

    Batch norm behind the trunk uses its `running` statistics, or those of the `batch`, in even batches of at most 500.
    """
    with torch.no_grad():
        split.model.eval()
        if batch_norm == "batch" and len(index) > 1:
            split.train(trunk=False)
        kept = split.buffers()
        parts = np.array_split(index, max(1, -(-len(index) // _BATCH)))
        made = [split.top(maps(PLAIN, part) if maps else split.trunk(data.plain(part))) for part in parts]
        split.restore(kept)
        split.model.eval()
        return Outputs(*(torch.cat([getattr(part, name).float() for part in made]) for name in Outputs._fields))


@dataclass(frozen=True)
class Maps:
    """The trunk's maps of all training samples: (views, n, height, width, channels), view `PLAIN` first."""

    stored: NDArray[np.generic]
    device: torch.device

    def __call__(self, view: int | NDArray[np.int64], index: NDArray[np.int64]) -> torch.Tensor:
        """Return maps (batch, channels, height, width), channels_last; `view` is one for all or one a sample."""
        made = torch.from_numpy(np.ascontiguousarray(self.stored[view, index]))
        if made.dtype == torch.int16:
            made = made.view(torch.bfloat16)
        return made.permute(0, 3, 1, 2).to(self.device)


def cached_maps(split: CutNetwork, data: ClientData, keys: Sequence[int]) -> Maps:
    """Return the plain view and one augmented view a key, for all training samples, from the cache or made now.

    Exact while the trunk is fixed: computed in batches of one order, so every worker reads the same bits.
    Raises ConfigError when the cache folder cannot hold them.
    """
    weights = {k: v for k, v in split.model.state_dict().items() if not is_top(k, split.layers)}
    place = f"{_FORMAT} {torch.__version__} {data.device.type} {precision_of(split.model)}"
    digest = hashlib.sha256(f"{place} {data.dataset.key} {list(keys)} {data.flip}".encode())
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].cpu().numpy().tobytes())
    folder = cache_directory() / f"maps-{digest.hexdigest()}"
    for _ in range(_ATTEMPTS):
        stored = _open(folder)
        if stored is not None:
            return Maps(stored, data.device)
        _open.cache_clear()
        replace_whole(folder, partial(_write, split=split, data=data, keys=keys))
    raise ConfigError("FEDSSL_CACHE", str(folder.parent), "a folder whose files can be read back")


@lru_cache(maxsize=1)
def _open(folder: Path) -> NDArray[np.generic] | None:
    """Map the stored array; None if it is missing or damaged."""
    try:
        if not intact(folder / _ARRAY, json.loads((folder / _SEAL).read_text())):
            return None
        return np.asarray(np.load(folder / _ARRAY, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, TypeError):
        return None


def _write(folder: Path, split: CutNetwork, data: ClientData, keys: Sequence[int]) -> None:
    """Write view after view through plain files: a memory map on a full disk would kill the process."""
    folder.mkdir()
    count = len(data.dataset.train)
    split.model.eval()
    with (folder / _ARRAY).open("wb") as file:
        for view, key in enumerate([None, *keys]):
            for start in range(0, count, _BATCH):
                index = np.arange(start, min(start + _BATCH, count))
                x = data.plain(index) if key is None else data.weak(index, key)
                maps = split.trunk(x).permute(0, 2, 3, 1).contiguous().cpu()
                array = (maps.view(torch.int16) if maps.dtype == torch.bfloat16 else maps).numpy()
                if view == start == 0:
                    shape = (1 + len(keys), count, *array.shape[1:])
                    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(array.tobytes())
        file.flush()
        os.fsync(file.fileno())
    (folder / _SEAL).write_text(json.dumps(seal(folder / _ARRAY)))
