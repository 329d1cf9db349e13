"""Lists of one bucket: its tickets (written by ingest) and its subject manifests (written by preprocessing).

Rules name these lists in place of the files in them, each with its hash: a changed ticket changes the list. So no label
of a person reaches Snakemake's own logs and records, a scheduler's job names or its folders, and a rule of a bucket has
a handful of inputs however many scans the bucket holds.

Snakemake takes a list of the same bytes for unchanged, however new it is. So the list of subject manifests, which name
derivatives without hashes, also says what the derivatives are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boldmill.atomic import canonical_json, read_json, sha256_file, sha256_text
from boldmill.errors import MachineFault
from boldmill.index.read import TABLE, ScanRow
from boldmill.index.write import json_text, write_if_changed
from boldmill.paths import Layout

SCHEMA = 1
NAME = re.compile(r"bucket-\d{3,4}\.json")
FIX = {
    "tickets": "run `snakemake ingest`, then the workflow again",
    "subjects": "delete the list and run the workflow again: who is unchanged is reused",
}


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
                path.unlink(missing_ok=True)
    return sorted(lists)


def subject_list(results: Path, manifests: Mapping[str, Path]) -> dict[str, Any]:
    """Return the list of a bucket's subject manifests, by ``"<dataset>/<subject>"``, with a digest of their outputs."""
    subjects = {
        who: {"path": path.relative_to(results).as_posix(), "sha256": sha256_file(path), "made": _made(path)}
        for who, path in sorted(manifests.items())
    }
    return {"schema": SCHEMA, "subjects": subjects}


def _made(manifest: Path) -> str:
    """Return a digest of the settings and the outputs of a subject: another one wherever a derivative differs.

    Description and README of the data set, which say where it lies, are nobody's own.
    """
    from boldmill.provenance.record import prov_path

    record = read_json(prov_path(manifest))
    named = ((Path(item["path"]).name, item["sha256"]) for item in record["outputs"])
    outputs = sorted(output for output in named if "sub-" in output[0])
    return sha256_text(canonical_json([record["settings_digest"], outputs]))


@contextmanager
def steady(*paths: Path) -> Iterator[None]:
    """Refuse what was made while ingest wrote one of these files anew.

    Snakemake hashes the inputs of a job when it is over: it would take what was made of the old ones for up to date.

    Raises
    ------
    MachineFault
        A file is not the one it was; a retry reads the new one.
    """
    before = {path: sha256_file(path) for path in paths}
    yield
    for path, digest in before.items():
        if not path.is_file() or sha256_file(path) != digest:
            why = "`snakemake ingest` wrote it anew while this job read it"
            raise MachineFault("the index changed meanwhile", path, why, "run the workflow again")


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
                raise MachineFault("a file of a bucket is gone", file, f"{path} lists it", FIX[kind])
            if sha256_file(file) != entry["sha256"]:
                raise MachineFault("a file of a bucket changed", file, f"{path} lists another content", FIX[kind])
            found.append(file)
    return found
