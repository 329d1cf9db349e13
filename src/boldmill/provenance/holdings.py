"""Everything below a results folder that holds a person's data, and what becomes of it.

Files that belong to somebody else by their name are not opened: a job of one subject reads no other. All shared files
are looked into, whatever they are, also behind links to folders; what cannot be read is named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boldmill.provenance import journal
from boldmill.provenance.cut import cached, folders_of, rows_of
from boldmill.provenance.files import STATE
from boldmill.provenance.person import PLACES, TEMPORARY, Person, of_somebody
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
WEIGHTS = {".safetensors"}
FOLDERS = (*PLACES, "index", "shards", "datasets", "models", "evaluate", "interpret", "ablation", "report")
"""Folders of the results that may be links to another disk."""
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
    dark: list[OSError] = []
    for folder, folders, names in folders_of(results, dark.append):
        base = PurePosixPath(folder.relative_to(results).as_posix())
        for name in sorted(folders):
            linked = (folder / name).is_symlink()
            if linked and not _ours(base / name, os.path.realpath(folder / name), person):
                folders.remove(name)
            elif person.owns(base / name):
                if linked:
                    yield Holding(REPORT, base / name, "a link to a folder of theirs: remove both by hand")
                else:
                    number = sum(len(files) for _, _, files in os.walk(folder / name))
                    yield Holding(DELETE, base / name, f"folder, {number} files")
                folders.remove(name)
            elif of_somebody(name):
                folders.remove(name)
        for name in names:
            path = base / name
            if person.owns(path):
                yield Holding(DELETE, path, _kind(path))
            elif not of_somebody(name):
                try:
                    yield from _shared(results, path, person)
                except FileNotFoundError:  # a link to nowhere, or gone meanwhile
                    continue
                except OSError as error:
                    yield Holding(REPORT, path, f"cannot be read ({error.strerror}): look yourself")
    for fault in dark:
        where = PurePosixPath(Path(fault.filename).relative_to(results).as_posix())
        yield Holding(REPORT, where, f"cannot be read ({fault.strerror}): look yourself")


def _ours(path: PurePosixPath, target: str, person: Person) -> bool:
    """Return whether a link leads to a folder of the results that lies elsewhere, and not to raw data."""
    raw = any(f"{target}/".startswith(f"{root}/") for root in person.roots)
    return path.parts[0] in FOLDERS and not raw


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
    """Yield what a file of several people holds of the person.

    Raises
    ------
    OSError
        It cannot be read.
    """
    name, file = path.as_posix(), results / path
    if (path.parent == LEDGER and path.suffix in (".parquet", ".salt")) or path.name in ("forgotten.tsv", journal.NAME):
        return
    if TEMPORARY.match(path.name):
        yield Holding(DELETE, path, "left by a killed command: may hold them")
    elif path.suffix == ".parquet":
        yield from _table(name, path, file, person)
    elif file.match(STATE):
        if not _never_knew(results, file, person):
            yield Holding(DELETE, path, "state of an interrupted training: knew them, or may have")
    elif path.suffix in WEIGHTS:
        if _holds(file, person):
            yield Holding(REPORT, path, "its header names the person: remove it by hand, or train again")
    elif _holds(file, person):
        yield from _named(name, path, file, person)


def _table(name: str, path: PurePosixPath, file: Path, person: Person) -> Iterator[Holding]:
    import pyarrow as pa

    try:
        if name == "index/hashes.parquet":
            if number := sum(cached(file, person)):
                yield Holding(CUT, path, f"facts of {number} raw files")
        elif number := rows_of(file, person):
            yield Holding(CUT, path, f"{number} rows")
    except pa.ArrowException:
        yield Holding(REPORT, path, "a damaged table: remove it, the next run makes it again")


def _named(name: str, path: PurePosixPath, file: Path, person: Person) -> Iterator[Holding]:
    """Yield what becomes of a file that names the person."""
    if name.endswith(SUFFIX):
        yield Holding(RECORD, path, "record that names them")
    elif name in PAGES:
        yield Holding(AGAIN, path, "page or table of everybody")
    elif name in CACHES:
        yield Holding(DELETE, path, "cache")
    elif path.name == "subjects.json" and (weights := _weights(file.parent)):
        yield Holding(CUT, path, "list of who was trained on")
        for one in weights:
            yield Holding(MARK, path.parent / one, "trained on them: cannot be cut out")
    elif path.suffix == ".json":
        yield Holding(CUT, path, "entries")
    elif name in ROWS:
        yield Holding(CUT, path, "rows")
    elif path.suffix == ".html":
        yield Holding(AGAIN, path, "page that names them")
    elif _is_text(file):
        yield Holding(REDACT, path, "text that names them")
    else:
        yield Holding(REPORT, path, "no text, and names them: remove it by hand")


def _weights(folder: Path) -> list[PurePosixPath]:
    """Return the weights beside a list of subjects, relative to it."""
    found = (one for one in sorted(folder.rglob("*")) if one.suffix in WEIGHTS and not one.match(STATE))
    return [PurePosixPath(one.relative_to(folder).as_posix()) for one in found]


def _never_knew(results: Path, state: Path, person: Person) -> bool:
    """Return whether a state is of a snapshot that is still there, and that never let a training see the person."""
    import json

    from boldmill.provenance.claims import manifests

    try:
        with open(state, "rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(min(size, LOOK)))
        snapshot = json.loads(header["__metadata__"]["boldmill"])["identity"]["snapshot"]
    except (ValueError, KeyError, TypeError):
        return False
    known = [one for one in manifests(results).values() if one.get("id") == snapshot]
    return any(one["subjects"].get(person.key, "heldout") == "heldout" for one in known)


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except ValueError:
        return path.suffix in (".log", ".txt", ".tsv", ".jsonl")  # a log may hold what a tool printed in another code
    return True


def _holds(path: Path, person: Person) -> bool:
    """Return whether a file's bytes name the person; the form is checked where the name is found at all."""
    with open(path, "rb") as handle:
        tail = b""
        while block := handle.read(LOOK):
            text = tail + block
            likely = any(needle in text for needle in person.needles)
            if likely and person.named_in(text.decode("utf-8", errors="replace")):
                return True
            tail = text[-4096:]
    return _row_like(path, person)


def _row_like(path: Path, person: Person) -> bool:
    """Return whether a table of files names the person in two columns, or by the name of a series as written."""
    if path.name == "hashes_tables.json":
        return _cached_series(path, person)
    if path.name != "ignored.tsv":
        return False
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    cells = (line.split("\t") for line in lines)
    return any(c[0] == person.dataset and len(c) > 1 and person.relative(c[1]) for c in cells)


def _cached_series(path: Path, person: Person) -> bool:
    """Return whether the cache of facts of tables holds a series of the person; a damaged one may."""
    from boldmill.atomic import read_json
    from boldmill.index.table_names import plain_label

    try:
        files = dict(read_json(path)["files"])
        for name, facts in files.items():
            members = [str(series["member"]) for series in facts["series"]]
            if person.is_raw(name) or any(m in person.names or plain_label(m) == person.subject for m in members):
                return True
    except (ValueError, KeyError, TypeError):
        return True
    return False


KEPT = ("conda", "conda-archive", "singularity", "locks", "shadow")
"""Folders of Snakemake's that hold software or nothing of ours."""


def snakemake_files(workdir: Path, person: Person) -> Iterator[Path]:
    """Yield files of Snakemake's own (logs, records of outputs, SLURM logs) that name the person."""
    home = workdir / ".snakemake"
    for folder, folders, names in os.walk(home):
        if Path(folder) == home:
            folders[:] = [name for name in folders if name not in KEPT]
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix in (".db", ".lock") or not path.is_file():
                continue
            if person.named_in(f"{path.relative_to(workdir).as_posix()} {_output(path, home)}") or _holds(path, person):
                yield path


def _output(path: Path, home: Path) -> str:
    """Return the output a record of Snakemake's is of: its name in base64, long ones in parts (`@part/part`)."""
    import base64

    parts = path.relative_to(home).parts[1:]
    try:
        return base64.urlsafe_b64decode("".join(part.removeprefix("@") for part in parts)).decode()
    except ValueError:  # no base64, or not of text
        return ""
