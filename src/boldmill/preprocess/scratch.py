"""Scratch folders below ``results/work``, which several jobs share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TRIES = 10
"""Attempts to make a scratch folder whose parents other jobs may remove."""


@contextmanager
def scratch(base: Path, group: str, name: str) -> Iterator[Path]:
    """Yield an empty folder ``base/group/name``; remove it after, and the folders above it that it leaves empty.

    Other jobs share the folders above and may remove them between two calls, so making one is tried again.
    """
    work = base / group / name
    shutil.rmtree(work, ignore_errors=True)  # left by a killed job
    for attempt in range(TRIES):
        try:
            work.mkdir(parents=True, exist_ok=True)
            break
        except FileNotFoundError:
            if attempt == TRIES - 1:
                raise
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for folder in (work.parent, base):
            with suppress(OSError):  # another job works there
                folder.rmdir()
