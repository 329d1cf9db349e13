"""Re-hash every recorded file and name every mismatch.

Example:
  boldmill audit verify
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.errors import EXIT_FAILURE, EXIT_OK
from boldmill.provenance.ledger import content_sha256, read_ledger


@dataclass(frozen=True, slots=True)
class Finding:
    """One mismatch: which file, and what is wrong with it."""

    path: str
    problem: str


def expected_hashes(ledger: Iterable[dict[str, Any]], *, outputs_only: bool) -> dict[str, str]:
    """Return path -> sha256 of every recorded file. Outputs win over what a reader saw of them."""
    ledger = list(ledger)
    expected: dict[str, str] = {}
    if not outputs_only:
        expected.update({item["path"]: item["sha256"] for row in ledger for item in row["inputs"]})
    expected.update({row["path"]: row["sha256"] for row in ledger})
    return expected


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--outputs-only", action="store_true", help="do not re-hash raw files")
    parser.add_argument("--threads", type=int, default=4, help="files hashed at once (default: 4)")


def run(args: argparse.Namespace) -> int:
    """Verify; exit 1 on any mismatch."""
    count, findings = verify(args.results, outputs_only=args.outputs_only, threads=args.threads)
    for finding in findings:
        print(f"{finding.path}: {finding.problem}")
    print(f"{count} files checked, {len(findings)} problems")
    return EXIT_FAILURE if findings else EXIT_OK
