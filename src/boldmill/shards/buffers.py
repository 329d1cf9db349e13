"""Memory of batches: pinned, shared with the main process, or used again.

A fresh buffer of 40 MB costs more than filling it (the system clears every page first: 1.4 GB/s instead of 4.6), so
ordinary buffers are kept and given out again once nobody refers to them. Pinned ones torch keeps itself.
"""

from __future__ import annotations

import sys
from math import prod
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

KEEP = 8
"""Buffers kept: batches read ahead, copied and used."""

SMALL = 1 << 20
"""Smaller ones are not kept."""


class Pool:
    """Buffers that are given out again when their last tensor is gone; any number of threads."""

    def __init__(self) -> None:
        self._kept: list[npt.NDArray[np.uint8]] = []
        self._lock = Lock()

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return ``size`` bytes that no tensor refers to."""
        with self._lock:
            for number in range(len(self._kept)):
                # referred to by the list and by the call: a tensor made from it would be a third
                if len(self._kept[number]) == size and sys.getrefcount(self._kept[number]) <= UNUSED:
                    return self._kept[number]
            fresh = np.empty(size, np.uint8)
            self._kept = [*(kept for kept in self._kept if len(kept) == size), fresh][-KEEP:]
            return fresh


def _unused() -> int:
    """Return the count of references to an entry of a list that nobody else refers to."""
    entries = [np.empty(0)]
    return sys.getrefcount(entries[0])


UNUSED = _unused()
POOL = Pool()


def batch_buffer(shape: tuple[int, ...], dtype: str, pin: bool) -> torch.Tensor:
    """Return an uninitialised tensor: pinned, or in shared memory where a worker will hand it to the main process."""
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    size = prod(shape) * kind.itemsize
    if get_worker_info() is not None:
        shared = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
        buffer: torch.Tensor = torch.empty(0, dtype=kind).set_(shared, 0, shape)  # type: ignore[call-overload]
        return buffer
    if pin or size < SMALL:
        return torch.empty(shape, dtype=kind, pin_memory=pin)
    return torch.from_numpy(POOL.take(size)).view(kind).view(shape)
