"""Whether the raw files of a subject's tickets are still those that were indexed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from boldmill.atomic import sha256_file
from boldmill.errors import MachineFault

HASHED_UP_TO = 16 << 20
"""Larger files are compared by size only, bytes."""
FIX = "run `snakemake ingest`, then the workflow again"


def entries(ticket: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the raw files a ticket names: BOLD, T1w, confounds, field maps."""
    confounds = [ticket["confounds"]] if ticket.get("confounds") else []
    fields = [entry for found in ticket.get("fmap", []) for entry in found["files"]]
    return [*ticket["bold"], *ticket["t1w"], *confounds, *fields]


def identity(entry: Mapping[str, Any]) -> str:
    """Return what stands for a file's content: its sha256, or its git-annex key.

    Raises
    ------
    MachineFault
        The ticket has neither: nothing would show that the file changed.
    """
    known = entry.get("sha256") or entry.get("annex_key")
    if not known:
        raise MachineFault("ticket without content", entry["path"], "it has no sha256 and no git-annex key", FIX)
    return str(known)


def verify(tickets: Iterable[Mapping[str, Any]]) -> None:
    """Check that every raw file is there with its recorded size, and small ones with their sha256.

    Raises
    ------
    MachineFault
        A file vanished or changed since it was indexed: the index is stale, the scan itself is not at fault.
    """
    seen: set[Path] = set()
    for ticket in tickets:
        for entry in entries(ticket):
            path = Path(ticket["root"]) / entry["path"]
            if path in seen:
                continue
            seen.add(path)
            if not path.is_file():
                raise MachineFault("raw file vanished", path, "it was there when the data set was indexed", FIX)
            size = path.stat().st_size
            if size != entry["size"]:
                why = f"it has {size} bytes, {entry['size']} when it was indexed"
                raise MachineFault("raw file changed", path, why, FIX)
            if entry.get("sha256") and size <= HASHED_UP_TO and sha256_file(path) != entry["sha256"]:
                raise MachineFault("raw file changed", path, "its sha256 is not the one that was indexed", FIX)
