"""Answer an auditor: whether files are what was written, and what made them.

Examples:
  boldmill audit verify                                   re-hash every recorded file, name every mismatch
  boldmill audit trace results/evaluate/brainmass/metrics.tsv
  boldmill audit trace 'results/shards/fc/Schaefer2018embedded/bucket-000.parquet#scan=demo_sub-01_task-rest'

Both read results/provenance/ledger.parquet; `snakemake audit` brings it up to date.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json, sha256_file
from boldmill.errors import EXIT_FAILURE, EXIT_OK, BoldmillError, DataFault
from boldmill.paths import Layout
from boldmill.provenance.record import MEMBER, member_path, shown

SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")
SCAN = re.compile(r"scan=([A-Za-z0-9]+)_sub-([A-Za-z0-9]+)(?:_|$)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One mismatch: which file, and what is wrong with it."""

    path: str
    problem: str


def read_ledger(results: Path) -> list[dict[str, Any]]:
    """Return the rows of the ledger; a missing ledger is named with the command that writes it."""
    import pyarrow.parquet as pq

    path = Layout.at(results).ledger
    if not path.exists():
        raise BoldmillError("cannot audit", path, "there is no ledger yet", "run `snakemake audit`")
    return list(pq.read_table(path).to_pylist())


def expected_hashes(ledger: Iterable[dict[str, Any]], *, outputs_only: bool) -> dict[str, str]:
    """Return path -> sha256 of every recorded file. Outputs win over what a reader saw of them."""
    ledger = list(ledger)
    expected: dict[str, str] = {}
    if not outputs_only:
        expected.update({item["path"]: item["sha256"] for row in ledger for item in row["inputs"]})
    expected.update({row["path"]: row["sha256"] for row in ledger})
    return expected


def content_sha256(path: str) -> str | None:
    """Return the hash of a recorded file, or of the recorded member of an archive; None where it is gone."""
    name, _, member = path.partition(MEMBER)
    if not member or Path(path).exists():
        return sha256_file(path) if Path(path).exists() else None
    from boldmill.index.table_files import read_series

    try:
        return read_series(Path(name), member)[2]
    except (DataFault, FileNotFoundError):
        return None


def check_file(path: str, sha256: str) -> Finding | None:
    """Return what is wrong with one file, if anything."""
    found = content_sha256(path)
    if found is None:
        return Finding(path, "missing")
    return None if found == sha256 else Finding(path, f"content changed: recorded {sha256[:12]}, found {found[:12]}")


def check_records(ledger: Iterable[dict[str, Any]]) -> Iterator[Finding]:
    """Yield outputs whose own record no longer says what the ledger holds, or is gone."""
    for row in ledger:
        record = Path(row["record"])
        if not record.exists():
            yield Finding(row["path"], f"its record is missing: {record}")
            continue
        known = {item["path"]: item["sha256"] for item in read_json(record)["outputs"]}
        if known.get(row["path"]) != row["sha256"]:
            yield Finding(row["path"], f"its record changed after the ledger was written: {record}")


def check_chain(ledger: Iterable[dict[str, Any]]) -> Iterator[Finding]:
    """Yield inputs whose content, as a stage read it, is not what their own stage recorded: stale consumers."""
    ledger = list(ledger)
    written = {row["path"]: row["sha256"] for row in ledger}
    for row in ledger:
        for item in row["inputs"]:
            if written.get(item["path"], item["sha256"]) != item["sha256"]:
                yield Finding(row["path"], f"stale: it was made from an older {item['path']}")


def verify(results: Path, *, outputs_only: bool = False, threads: int = 4) -> tuple[int, list[Finding]]:
    """Re-hash every recorded file and return (number of files, findings in the order of paths)."""
    from tqdm import tqdm

    ledger = read_ledger(results)
    expected = expected_hashes(ledger, outputs_only=outputs_only)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(check_file, expected, expected.values())
        findings = [f for f in tqdm(found, total=len(expected), desc="verify", unit="file", disable=None) if f]
    findings += [*check_records(ledger), *check_chain(ledger)]
    return len(expected), sorted(set(findings), key=lambda finding: (finding.path, finding.problem))


def trace(ledger: list[dict[str, Any]], target: str) -> list[str]:
    """Return the tree of what made ``target``, one line per file, down to files nothing recorded as an output.

    Parameters
    ----------
    target : str
        Path of any recorded file, optionally with ``#scan=<scan id>``: then only that subject's branch is shown.
    """
    path, _, selection = target.partition("#")
    by_path = {row["path"]: row for row in ledger}
    start = _find(by_path, path)
    only = SCAN.match(selection)
    if selection and only is None:
        why = f"'#{selection}' names no scan"
        raise BoldmillError("cannot trace", target, why, "write #scan=<data set>_sub-<label>_task-<label>...")
    lines: list[str] = []
    seen: set[str] = set()

    def walk(name: str, sha256: str, depth: int) -> None:
        row = by_path.get(name)
        state = _state(name, row["sha256"] if row else sha256, sha256)
        indent = "  " * depth
        if row is None:
            lines.append(f"{indent}{name}  sha256 {sha256[:12]}  [source{state}]")
            return
        again = " (shown above)" if name in seen else ""
        made = f"{row['stage']} v{row['stage_version']}, settings {row['settings_digest']}, code {_code(row)}"
        lines.append(f"{indent}{name}  sha256 {sha256[:12]}  [{made}{state}]{again}")
        if again:
            return
        seen.add(name)
        lines.append(f"{indent}  settings: {row['settings']}")
        tickets = _tickets_of_series(row["inputs"]) if only else {}
        for item in sorted(row["inputs"], key=lambda item: str(item["path"])):
            told = tickets.get(item["path"], item["path"])
            if only is None or _is_of(told, only[1], only[2], recorded=told in by_path):
                walk(item["path"], item["sha256"], depth + 1)

    walk(start, by_path[start]["sha256"], 0)
    if only and not any(f"sub-{only[2]}" in line for line in lines):
        raise BoldmillError("cannot trace", target, "nothing of that subject went into it", "name a scan that did")
    return lines


def _tickets_of_series(inputs: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return source -> ticket of the tables of parcel series among the inputs: their own names tell nobody."""
    found: dict[str, str] = {}
    for item in inputs:
        path = Path(item["path"])
        if path.parent.name == "tickets" and path.is_file():
            ticket = read_json(path)
            for one in ticket.get("series", []):
                found[shown(member_path(Path(ticket["root"]) / one["path"], one["member"]))] = item["path"]
    return found


def _is_of(path: str, dataset: str, subject: str, *, recorded: bool) -> bool:
    """Return whether a file belongs to a subject, or to nobody in particular.

    Our own files name their data set, as a folder or at the start of a scan id; labels alone are not unique. A raw file
    need not name it, and is reached through its own subject's record only.
    """
    found = SUBJECT.search(path)
    if found is None:
        return True
    *folders, name = Path(path).parts
    return found[1] == subject and (not recorded or dataset in folders or name.startswith(f"{dataset}_"))


def _find(by_path: dict[str, dict[str, Any]], path: str) -> str:
    wanted = Path(path).as_posix()
    relative = Path(path).resolve()
    matches = [p for p in by_path if p == wanted or Path(p).resolve() == relative]
    if not matches:
        raise BoldmillError("cannot trace", path, "no recorded command wrote it", "name a file below the results")
    return matches[0]


def _state(name: str, written: str, read: str) -> str:
    found = content_sha256(name)
    if found is None:
        return ", gone"
    if written != read:
        return ", stale: rewritten since"
    return "" if found == read else ", CHANGED since it was recorded"


def _code(row: dict[str, Any]) -> str:
    commit = (row["git_commit"] or "unknown")[:10]
    return f"{commit}{'+dirty' if row['git_dirty'] else ''}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=["verify", "trace"], help="verify hashes, or trace one file to its sources")
    parser.add_argument("target", nargs="?", help="what to trace: a path, optionally with #scan=ID")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--outputs-only", action="store_true", help="do not re-hash raw files (verify)")
    parser.add_argument("--threads", type=int, default=4, help="files hashed at once (default: 4)")


def run(args: argparse.Namespace) -> int:
    """Verify or trace; exit 1 on any mismatch."""
    if args.action == "verify":
        count, findings = verify(args.results, outputs_only=args.outputs_only, threads=args.threads)
        for finding in findings:
            print(f"{finding.path}: {finding.problem}")
        print(f"{count} files checked, {len(findings)} problems")
        return EXIT_FAILURE if findings else EXIT_OK
    if not args.target:
        raise BoldmillError("cannot trace", "boldmill audit trace", "no file was named", "give the path of an output")
    print("\n".join(trace(read_ledger(args.results), args.target)))
    return EXIT_OK
