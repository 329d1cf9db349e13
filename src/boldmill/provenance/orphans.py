"""Name files below the results that no record knows, or whose subject, scan or bucket is no longer in the index.

Never deletes: `boldmill clean --what orphans,temp` lists what it can free, and frees it with --delete. A scan that was
taken out of the data sets has a tombstone, which says why; shards that still hold its rows are named too, and are made
again by `snakemake shards`. `boldmill audit forget` removes everything of a subject.

Exit status: 0 there are none, 1 there are some, 2 the command line is wrong.

Example:
  boldmill audit orphans --results results
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from boldmill.errors import EXIT_FAILURE, EXIT_OK
from boldmill.index.read import Index, read_index
from boldmill.paths import Layout
from boldmill.provenance.files import artefacts, leftovers, states, stranger
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.lifetimes import is_frozen
from boldmill.provenance.record import shown

PER_DATASET = ("derivatives", "preprocess", "flatmap", "parcellate", "reports")
"""Folders with one folder per data set."""
SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")
BUCKET = re.compile(r"bucket-(\d+)\.")
NAMED = 3


class Orphan(NamedTuple):
    """A file or folder, and why nothing stands behind it."""

    path: str
    why: str


class Living:
    """Who is in the index, and who was.

    Parameters
    ----------
    index : Index
        The index.
    stones : dict
        Scan id -> reason of every tombstone.
    """

    def __init__(self, index: Index, stones: dict[str, str]) -> None:
        self.stones = stones
        self.buckets = set(index.buckets())
        self.scans = {scan.scan_id for scan in index.ok}
        self.people = {(scan.dataset, scan.subject) for scan in index.ok}
        self._of: dict[tuple[str, str], list[str]] = {}
        for scan_id in sorted({*self.scans, *stones}, key=len, reverse=True):
            dataset, _, rest = scan_id.partition("_")
            found = SUBJECT.match(rest)
            if found:
                self._of.setdefault((dataset, found[1]), []).append(scan_id)

    def scan_of(self, who: tuple[str, str], name: str) -> str | None:
        """Return the scan a file is of, by the longest scan id its name begins with, with or without the data set."""
        dataset, _ = who
        full = name if name.startswith(f"{dataset}_") else f"{dataset}_{name}"
        return next((s for s in self._of.get(who, ()) if re.match(rf"{re.escape(s)}(?![A-Za-z0-9-])", full)), None)

    def why_not(self, dataset: str, subject: str, name: str) -> str | None:
        """Return why a file of a subject is an orphan, or None."""
        scan = self.scan_of((dataset, subject), name)
        if scan is not None and scan not in self.scans:
            return f"its scan left the index: {self.stones[scan]}"
        if (dataset, subject) not in self.people:
            stones = sorted(
                {why for scan_id, why in self.stones.items() if scan_id.startswith(f"{dataset}_sub-{subject}_")}
            )
            return "its subject is not in the index" + (f": {'; '.join(stones)}" if stones else "")
        return None


def tombstones(results: Path) -> dict[str, str]:
    """Return scan id -> reason of every scan that left the index."""
    from boldmill.index.write import read_tombstones

    rows = read_tombstones(Layout.at(results).index.parent / "tombstones.tsv")
    return {scan_id: reason for scan_id, _, reason in rows}


def orphans(results: Path, recorded: Iterable[str], index: Index | None) -> list[Orphan]:
    """Return all orphans, sorted by path.

    Parameters
    ----------
    results : Path
        Results folder.
    recorded : iterable of str
        Paths of all outputs.
    index : Index, optional
        Without an index only records are asked.
    """
    known = set(recorded)
    living = Living(index, tombstones(results)) if index is not None else None
    found = [Orphan(shown(path), "left by a command that was killed") for path in leftovers(results)]
    waiting = "state of a training that did not end: the same command goes on from it"
    found += [Orphan(shown(path), waiting) for path in states(results) if shown(path) not in known]
    for path in artefacts(results):
        why = _why(path.relative_to(results), living) if living else None
        if why is None and shown(path) not in known:
            why = stranger(path)
        if why is not None:
            found.append(Orphan(shown(path), why))
    if living is not None:
        found += _caches(results, living)
        found += _rows(results, living)
    return sorted(set(found))


def _why(path: Path, living: Living) -> str | None:
    """Return why an artefact (below the results) belongs to nobody in the index, or None."""
    if is_frozen(path):  # kept on purpose, whoever left since
        return None
    bucket = BUCKET.match(path.name)
    if bucket and int(bucket[1]) not in living.buckets:
        return "nobody is in its bucket any more"
    if path.parts[0] == "index" and path.parent.name == "tickets":
        return (
            None if path.stem in living.scans else f"its scan left the index: {living.stones.get(path.stem, 'unknown')}"
        )
    if path.parts[0] in PER_DATASET and len(path.parts) > 2:
        subject = SUBJECT.search("/".join(path.parts[2:]))
        dataset = path.name.partition("_")[0] if path.parts[1].startswith("bucket-") else path.parts[1]
        return living.why_not(dataset, subject[1], path.name) if subject else None
    return None


def _caches(results: Path, living: Living) -> Iterator[Orphan]:
    for path in (results / "preprocess").glob("*/.cache/sub-*"):
        subject = path.name.removeprefix("sub-")
        why = living.why_not(path.parent.parent.name, subject, path.name)
        if why:
            yield Orphan(shown(path), f"a cache: {why}")


def _rows(results: Path, living: Living) -> Iterator[Orphan]:
    """Yield the shards that hold rows of scans that are no longer in the index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted((results / "shards").rglob("bucket-*.parquet")):
        try:
            scans = set(pq.read_table(path, columns=["scan_id"]).column("scan_id").to_pylist())
        except (pa.ArrowException, OSError, KeyError):
            continue  # damaged: `audit verify` names it
        if gone := sorted(scans - living.scans):
            names = ", ".join(gone[:NAMED]) + (f" and {len(gone) - NAMED} more" if len(gone) > NAMED else "")
            yield Orphan(
                shown(path), f"holds rows of {len(gone)} scans that left the index: {names}; run `snakemake shards`"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per orphan")


def run(args: argparse.Namespace) -> int:
    """List; exit 1 where there is an orphan."""
    index = read_index(args.results) if Layout.at(args.results).index.is_file() else None
    found = orphans(args.results, Ledger.load(args.results).paths, index)
    for orphan in found:
        print(json.dumps(orphan._asdict()) if args.json else f"{orphan.path}: {orphan.why}")
    if not args.json:
        if index is None:
            print("there is no index: subjects and scans were not compared")
        print(f"{len(found)} orphans" + (" (see `boldmill clean`; nothing was deleted)" if found else ""))
    return EXIT_FAILURE if found else EXIT_OK
