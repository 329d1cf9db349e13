"""Show what made one file, down to the raw files.

Examples:
  boldmill audit trace results/evaluate/brainmass/metrics.tsv
  boldmill audit trace 'results/shards/fc/Schaefer2018embedded/bucket-000.parquet#scan=demo_sub-01_task-rest'
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.errors import EXIT_OK, BoldmillError
from boldmill.provenance.ledger import content_sha256, read_ledger
from boldmill.provenance.record import member_path, shown

SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")
SCAN = re.compile(r"scan=([A-Za-z0-9]+)_sub-([A-Za-z0-9]+)(?:_|$)")


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
    parser.add_argument("target", help="what to trace: a path, optionally with #scan=ID")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")


def run(args: argparse.Namespace) -> int:
    """Print the tree."""
    print("\n".join(trace(read_ledger(args.results), args.target)))
    return EXIT_OK
