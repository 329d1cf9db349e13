"""Split array work over the threads the job was given; numpy and scipy release the interpreter lock in their loops.

Pieces have a size of their own and write to places of their own, so the bytes do not depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


def workers() -> int:
    """Return how many threads to use: ``OMP_NUM_THREADS``, which Snakemake sets for a job; else the cores at hand."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pieces(total: int, size: int) -> list[slice]:
    """Return slices of at most ``size`` that cover ``range(total)``.

    >>> pieces(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(first, min(first + size, total)) for first in range(0, total, max(1, size))]


def each(work: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Call ``work`` once per item, on :func:`workers` threads; the first error is raised after all have ended."""
    from concurrent.futures import ThreadPoolExecutor

    todo = list(items)
    threads = min(workers(), len(todo))
    if threads < 2:
        for item in todo:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:  # made per call: a pool that outlives a fork hangs
        list(pool.map(work, todo))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold numpy's BLAS to one thread, as long as any caller in this process is inside.

    Products of 100 x 100 run slower on several threads than on one, ours run at once on threads of our own, and BLAS
    threads that wait for the next product keep a core busy.
    """
    global _inside, _held
    with _lock:
        if _inside == 0:
            _held = _blas().limit(limits=1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _held.restore_original_limits()


_lock = threading.Lock()
_inside = 0
_held: Any = None


@lru_cache(maxsize=1)
def _blas() -> Any:
    import numpy as np  # noqa: F401 - loads the library that is looked for
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController().select(user_api="blas")
