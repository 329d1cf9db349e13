"""Everything below a results folder that holds a person's data, and what becomes of it.

Files that belong to somebody else by their name are not opened: a job of one subject reads no other. All shared files
are looked into, whatever they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boldmill.provenance.cut import cached, rows_of
from boldmill.provenance.person import Person, of_somebody
from boldmill.provenance.record import SUFFIX

DELETE, CUT, REDACT, AGAIN, RECORD, MARK, REPORT = "delete", "cut", "redact", "make again", "record", "mark", "report"
"""What becomes of a file: theirs alone; their rows and entries leave it; their name leaves it; it is removed, and the
next run makes it again; the record follows what changed; the model is named and marked; it cannot be helped here."""

PAGES = ("reports/cohort.html", "reports/cohort.tsv", "report/index.html", "quarantine.tsv")
"""Made of everybody in seconds to minutes: removed, and the next run makes them again without the person."""
CACHES = ("index/hashes_tables.json", "provenance/verify.jsonl")
"""Removed: the next ingest, or verification, reads the files again."""
ROWS = ("index/quarantine.tsv", "index/ignored.tsv", "index/tombstones.tsv")
"""Tables whose rows are about one scan or file each."""
LEDGER = PurePosixPath("provenance")
"""Its tables are written anew from the records, and tombstones name nobody."""
TEXTS = {".json", ".tsv", ".jsonl", ".log", ".txt", ".md", ".html", ".csv", ".yaml"}
WEIGHTS = {".safetensors"}
LOOK = 1 << 20
"""Bytes looked into at once."""


class Holding(NamedTuple):
    """One file or folder: what becomes of it, where it lies relative to the results, what of the person it holds."""

    action: str
    path: PurePosixPath
    what: str


def find(results: Path, person: Person) -> list[Holding]:
    """Return all holdings, by action and path."""
    return sorted(_walk(results, person))


def _walk(results: Path, person: Person) -> Iterator[Holding]:
    for folder, folders, names in os.walk(results):
        base = PurePosixPath(Path(folder).relative_to(results).as_posix())
        for name in sorted(folders):
            if person.owns(base / name):
                number = sum(len(files) for _, _, files in os.walk(Path(folder) / name))
                yield Holding(DELETE, base / name, f"folder, {number} files")
                folders.remove(name)
            elif of_somebody(name):
                folders.remove(name)
        for name in names:
            path = base / name
            if person.owns(path):
                yield Holding(DELETE, path, _kind(path))
            elif not of_somebody(name):
                yield from _shared(results, path, person)


def _kind(path: PurePosixPath) -> str:
    kinds = {
        "tickets": "ticket",
        "recipes": "recipe",
        "figures": "figures of the page",
        "parcellate": "parcel series",
        "flatmap": "flat maps",
        "reports": "page",
        "logs": "log",
        "benchmarks": "benchmark",
        "derivatives": "derivative",
        "preprocess": "manifest",
    }
    return next((words for part, words in kinds.items() if part in path.parts), "file")


def _shared(results: Path, path: PurePosixPath, person: Person) -> Iterator[Holding]:
    """Yield what a file of several people holds of the person."""
    name, file = path.as_posix(), results / path
    if (path.parent == LEDGER and path.suffix in (".parquet", ".salt")) or path.name == "forgotten.tsv":
        return
    if path.suffix == ".parquet":
        if name == "index/hashes.parquet":
            if number := sum(cached(file, person)):
                yield Holding(CUT, path, f"facts of {number} raw files")
        elif number := rows_of(file, person):
            yield Holding(CUT, path, f"{number} rows")
        return
    if path.suffix in WEIGHTS:
        if _holds(file, person):
            yield Holding(REPORT, path, "its header names the person: remove it by hand, or train again")
        return
    if path.suffix not in TEXTS or not _holds(file, person):
        return
    if name.endswith(SUFFIX):
        yield Holding(RECORD, path, "record that names them")
    elif name in PAGES:
        yield Holding(AGAIN, path, "page or table of everybody")
    elif name in CACHES:
        yield Holding(DELETE, path, "cache")
    elif path.name == "subjects.json" and path.parts[0] in ("models", "ablation"):
        yield Holding(CUT, path, "list of who was trained on")
        for weights in sorted((results / path).parent.rglob("*")):
            if weights.suffix in WEIGHTS:
                yield Holding(
                    MARK, path.parent / weights.relative_to(file.parent), "trained on them: cannot be cut out"
                )
    elif path.suffix == ".json":
        yield Holding(CUT, path, "entries")
    elif name in ROWS:
        yield Holding(CUT, path, "rows")
    elif path.suffix == ".html":
        yield Holding(AGAIN, path, "page that names them")
    else:
        yield Holding(REDACT, path, "text that names them")


def _holds(path: Path, person: Person) -> bool:
    """Return whether a file's bytes name the person; the form is checked where the name is found at all."""
    try:
        with open(path, "rb") as handle:
            tail = b""
            while block := handle.read(LOOK):
                text = tail + block
                likely = any(needle in text for needle in (*person.needles, *(scan.encode() for scan in person.scans)))
                if likely and person.named_in(text.decode("utf-8", errors="replace")):
                    return True
                tail = text[-4096:]
    except OSError:
        return False
    return _row_like(path, person)


def _row_like(path: Path, person: Person) -> bool:
    """Return whether a small table of files names the person by data set and path in two columns."""
    if path.name != "ignored.tsv":
        return False
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    cells = (line.split("\t") for line in lines)
    return any(c[0] == person.dataset and len(c) > 1 and person.relative(c[1]) for c in cells)


def snakemake_files(workdir: Path, person: Person) -> Iterator[Path]:
    """Yield files of Snakemake's own (logs, records of outputs, SLURM logs) that name the person."""
    import base64

    for path in sorted((workdir / ".snakemake").rglob("*")):
        if not path.is_file() or path.suffix in (".db", ".lock"):
            continue
        told = path.relative_to(workdir).as_posix()
        with suppress(ValueError):  # a name that is no base64, or not of text
            told += " " + base64.b64decode(path.name.encode(), validate=True).decode()
        if person.named_in(told) or _holds(path, person):
            yield path
