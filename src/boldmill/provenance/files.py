"""The files below a results folder, by what they are to an auditor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from boldmill.paths import Layout
from boldmill.provenance.record import SUFFIX

NO_ARTEFACTS = ("logs", "benchmarks", "work", "provenance", "lost+found")
"""Folders directly below the results whose files nobody records; those of the audit are checked by name."""
CACHES = (".cache", ".snakemake")
"""Folders that only save time: deleting one changes no output."""
CACHE_FILES = ("index/hashes.parquet", "index/hashes_tables.json")
TEMPORARY = ".tmp-"
STATE = "resume*.safetensors"
"""State of a training that is under way or was interrupted, and goes on from it; no output yet."""


def walk(folder: Path, *, skip: tuple[str, ...] = ()) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every file below a folder with its state, in no order; ``skip`` names folders, at any depth.

    Links to folders are followed, each target once. A folder that cannot be read is yielded itself: what nobody can
    look into must not pass for empty.
    """
    todo, followed = [folder], {os.path.realpath(folder)}
    while todo:
        here = todo.pop()
        try:
            entries = list(os.scandir(here))
        except FileNotFoundError:  # gone meanwhile
            continue
        except OSError:
            yield here, _state(here)
            continue
        for entry in entries:
            try:
                if _is_folder(entry):
                    if entry.name in skip:
                        continue
                    if entry.is_symlink():
                        target = os.path.realpath(entry.path)
                        if target in followed:
                            continue
                        followed.add(target)
                    todo.append(Path(entry.path))
                else:
                    yield Path(entry.path), _state(entry.path)
            except FileNotFoundError:  # gone meanwhile
                continue


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _state(path: str | Path) -> os.stat_result:
    """Return the state of a file or link itself; zeros where nobody may know it."""
    try:
        return os.lstat(path)
    except PermissionError:
        return os.stat_result((0,) * 10)


def record_files(results: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every record below a results folder."""
    yield from ((path, stat) for path, stat in _below(results) if path.name.endswith(SUFFIX))


def artefacts(results: Path) -> Iterator[Path]:
    """Yield every file that some command must have recorded; records, caches and leftovers are none."""
    caches = {results / name for name in CACHE_FILES}
    for path, _ in _below(results):
        none = path.name.endswith(SUFFIX) or path.name.startswith(TEMPORARY) or path.match(STATE)
        if not none and path not in caches:
            yield path


def stranger(path: Path) -> str:
    """Return what is to be said of an artefact that no record knows."""
    try:
        closed = path.is_dir()
    except OSError:
        closed = True
    return "cannot be looked into" if closed else "no record knows it"


def leftovers(results: Path) -> Iterator[Path]:
    """Yield the temporary files of killed commands."""
    yield from (path for path, _ in _below(results) if path.name.startswith(TEMPORARY))


def states(results: Path) -> Iterator[Path]:
    """Yield the saved states of trainings that did not end."""
    yield from (path for path, _ in _below(results) if path.match(STATE))


def _below(results: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files of the artefact folders and of the ledger's record, without caches."""
    ledger = Layout.at(results).ledger.parent
    if not results.is_dir():
        return
    for entry in sorted(os.scandir(results), key=lambda entry: entry.name):
        path = Path(entry.path)
        if not _is_folder(entry):
            yield path, entry.stat(follow_symlinks=False)
        elif entry.name not in (*NO_ARTEFACTS, *CACHES):
            yield from walk(path, skip=CACHES)
        elif path == ledger:
            yield from ((p, s) for p, s in walk(path) if p.name.endswith(SUFFIX))
