"""The files below a folder; links are followed, and lead nowhere for ever."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(root: Path, folder: str, enter: Callable[[str], bool] | None = None) -> Iterator[str]:
    """Yield the files below a folder, relative to the root; links to folders are followed once.

    Parameters
    ----------
    enter : callable, optional
        Which folders directly below ``folder`` are entered, by name; default all.
    """
    seen: set[tuple[int, int]] = set()
    stack = [folder]
    while stack:
        here = stack.pop()
        with os.scandir(root / here) as entries:
            for entry in sorted(entries, key=lambda one: one.name, reverse=True):
                path = f"{here}/{entry.name}" if here else entry.name
                if entry.name.startswith("."):
                    continue
                if not is_folder(entry):
                    yield path
                elif here != folder or enter is None or enter(entry.name):
                    if entry.is_symlink():  # a link back to a parent must not be walked for ever
                        stat = entry.stat()
                        if (stat.st_dev, stat.st_ino) in seen:
                            continue
                        seen.add((stat.st_dev, stat.st_ino))
                    stack.append(path)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link that leads back to itself is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False
