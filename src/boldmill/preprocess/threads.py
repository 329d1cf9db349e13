"""How many threads linear algebra may use: sums of several threads differ in the last bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def algebra_threads(limit: int | None = None) -> Iterator[None]:
    """Hold linear algebra to ``limit`` threads; by default to what the job was given, and to one outside of a job."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    given = os.environ.get("OMP_NUM_THREADS", "1")
    with threadpool_limits(limits=limit or (int(given) if given.isdigit() else 1)):
        yield
