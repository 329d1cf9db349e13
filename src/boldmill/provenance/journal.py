"""What a withdrawal of consent that is under way has to remember: a call that was killed goes on from it.

One JSON value per line, on the disk before what it tells of is done: first whom the withdrawal is of and the models
that knew them (the tables that say so are cut early), then hashes of files before they change, files and folders that
are removed, and new identities of snapshots. The file is removed once all is done.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "forget.journal"
FILE, FOLDER = "file removed", "folder removed"
"""In place of the hash before."""


def path_of(results: Path) -> Path:
    """Return where the journal lies."""
    return results / "provenance" / NAME


def read(results: Path) -> list[Any]:
    """Return the lines of the journal, if there is one.

    A line that cannot be read was being written as the call was killed: what it announces was not done yet.
    """
    path = path_of(results)
    found: list[Any] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def note(results: Path, line: Any) -> None:
    """Write a line; one that was cut short by a kill is closed first."""
    path = path_of(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as handle:
        if handle.tell():
            handle.seek(-1, os.SEEK_END)
            if handle.read(1) != b"\n":
                handle.write(b"\n")
        handle.write(json.dumps(line).encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
