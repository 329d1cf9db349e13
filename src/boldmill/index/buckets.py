"""Lists of one bucket: its tickets (written by ingest) and its subject manifests (written by preprocessing).

Rules name these lists in place of the files in them, each with its hash: a changed ticket changes the list. So no label
of a person reaches Snakemake's own logs and records, a scheduler's job names or its folders, and a rule of a bucket has
a handful of inputs however many scans the bucket holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json, sha256_file
from boldmill.errors import MachineFault
from boldmill.index.read import TABLE, ScanRow
from boldmill.index.write import json_text, write_if_changed
from boldmill.paths import Layout

SCHEMA = 1
NAME = re.compile(r"bucket-\d{3,4}\.json")
AGAIN = {"tickets": "run `snakemake ingest`, then the workflow again", "subjects": "run the workflow again"}


def write_bucket_lists(layout: Layout, rows: Iterable[ScanRow]) -> list[Path]:
    """Write the lists of every bucket, images and tables apart, where they changed; remove those of empty buckets."""
    lists: dict[Path, dict[str, Any]] = {}
    for row in rows:
        if row.ok:
            path = (layout.bucket_tables if row.kind == TABLE else layout.bucket)(row.bucket)
            lists.setdefault(path, {})[row.scan_id] = {"path": row.ticket, "sha256": row.ticket_sha256}
    for path, tickets in lists.items():
        number = int(path.stem.removeprefix("bucket-"))
        write_if_changed(path, json_text({"schema": SCHEMA, "bucket": number, "tickets": tickets}))
    for folder in (layout.bucket(0).parent, layout.bucket_tables(0).parent):
        for path in folder.glob("bucket-*.json"):
            if path not in lists:
                path.unlink()
    return sorted(lists)


def subject_list(results: Path, manifests: Mapping[str, Path]) -> dict[str, Any]:
    """Return the list of a bucket's subject manifests, by ``"<dataset>/<subject>"``."""
    subjects = {
        who: {"path": path.relative_to(results).as_posix(), "sha256": sha256_file(path)}
        for who, path in sorted(manifests.items())
    }
    return {"schema": SCHEMA, "subjects": subjects}


def listed(paths: Iterable[Path], results: Path) -> list[Path]:
    """Return the files that lists name, in their order; any other path stands for itself.

    Parameters
    ----------
    paths : iterable of Path
        Tickets or subject manifests, or lists of them.
    results : Path
        Results folder: lists name files relative to it.

    Raises
    ------
    MachineFault
        A file is gone or is not the one that was listed.
    """
    found: list[Path] = []
    for path in paths:
        if not NAME.fullmatch(path.name):
            found.append(path)
            continue
        content = read_json(path)
        kind = "tickets" if "tickets" in content else "subjects"
        for entry in content[kind].values():
            file = results / entry["path"]
            if not file.is_file():
                raise MachineFault("a file of a bucket is gone", file, f"{path} lists it", AGAIN[kind])
            if sha256_file(file) != entry["sha256"]:
                raise MachineFault("a file of a bucket changed", file, f"{path} lists another content", AGAIN[kind])
            found.append(file)
    return found
