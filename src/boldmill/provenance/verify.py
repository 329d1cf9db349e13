"""Re-hash every recorded file, raw ones included, and name every mismatch.

What is said of a file:
  missing                 it was recorded and is gone; temporary files may be
  content changed         its bytes are not those that were recorded; where another file was recorded with them, it says
                          `swapped with` or `it holds what ... should`
  backdated               its bytes are as recorded, its modification time is earlier than recorded
  newer                   its bytes are as recorded, its modification time is later: a copy or a touch, no mismatch; it
                          is counted, and with --strict named
  cannot be read          it is there, and its bytes cannot be had
  no record knows it      it lies in a folder of artefacts, but no command recorded it
  cannot be looked into   a folder, whose files are therefore not known
  the record ...          its record was edited, is missing, or cannot be read
  the ledger ...          the ledger was edited, or does not hold what the records say
  stale                   it was made from an older content of one of its inputs
  snapshot ...            a snapshot or a checkpoint names what does not lie there

A killed run goes on where it stopped (results/provenance/verify.jsonl); --fresh reads everything again. Whoever can
write records, ledger and files can forge all three: print the sha256 of the ledger (last line but one) elsewhere, and
hold a later state against it with --ledger-sha256.

Exit status: 0 no mismatch, 1 at least one, 2 the command line is wrong.

Examples:
  boldmill audit verify
  boldmill audit verify --outputs-only --threads 16       without the raw files
  boldmill audit verify --strict                          name files with newer times too
  boldmill audit verify --ledger-sha256 5e7bfc147772...   the state is the one that was published
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from boldmill.atomic import hash_file, read_json
from boldmill.errors import EXIT_FAILURE, EXIT_OK, BoldmillError
from boldmill.paths import Layout
from boldmill.provenance.claims import checkpoint_claims, snapshot_claims
from boldmill.provenance.files import artefacts, stranger
from boldmill.provenance.fold import INPUTS, Folded, fold, tidy
from boldmill.provenance.hashing import JOURNAL, Found, Journal, look, look_at_all
from boldmill.provenance.ledger import Ledger, read_table
from boldmill.provenance.record import DIGEST, SUFFIX, own_digest, prov_path, shown

COARSE_NS = (100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
"""Units (ns) in which file systems keep times: a copy may round a time down to one of them."""


class Finding(NamedTuple):
    """One mismatch: which file, and what is wrong with it."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Number of files read, findings in the order of paths, files with newer times, and hashes taken over."""

    files: int
    findings: list[Finding]
    newer: int
    recalled: int
    begun: str
    ledger_sha256: str


def verify(
    results: Path,
    *,
    outputs_only: bool = False,
    strict: bool = False,
    fresh: bool = False,
    threads: int = 4,
    ledger_sha256: str = "",
) -> Verification:
    """Hold every recorded file, every record and the ledger against each other.

    The records are what counts: the ledger is checked against them, and files are checked even where it is damaged.
    """
    from tqdm import tqdm

    path = Layout.at(results).ledger
    if not path.exists():
        raise BoldmillError("cannot audit", path, "there is no ledger yet", "run `snakemake audit`")
    folded = fold(results, path)
    truth = Ledger(folded.outputs, folded.inputs)
    truth.refuse_elsewhere(results)
    findings = [Finding(record, why) for record, why in folded.faults.items()]
    digest = hash_file(path)
    if ledger_sha256 and not digest.startswith(ledger_sha256.lower()):
        findings.append(Finding(shown(path), f"the ledger is {digest}, not {ledger_sha256}"))
    findings += check_ledger(results, folded)

    wanted = {} if outputs_only else _raw_hashes(truth)
    table = folded.outputs
    columns = zip(*(table.column(name).to_pylist() for name in ("path", "sha256", "mtime_ns")), strict=True)
    recorded = {name: (sha256, mtime_ns) for name, sha256, mtime_ns in columns}
    temporary = truth.temporary()
    journal = Journal(path.with_name(JOURNAL), fresh=fresh)
    changed: dict[str, Found] = {}
    hashes: dict[str, str | None] = {}
    seen: dict[str, str | None] = {}
    newer = 0
    todo = [*recorded, *wanted]
    looked = look_at_all(todo, journal, threads=threads)
    for found in tqdm(looked, total=len(todo), desc="verify", unit="file", disable=None):
        name = found.path
        if name.endswith(".parquet"):
            hashes[name] = found.sha256
        sha256, mtime_ns = recorded.get(name, ("", None))
        expected = wanted.get(name, {sha256})
        if len(expected) > 1:
            seen[name] = found.sha256
        if found.sha256 is None:
            if name in temporary and found.gone:
                continue
            findings.append(Finding(name, found.why))
        elif found.sha256 not in expected:
            changed[name] = found
        elif mtime_ns is not None and found.mtime_ns < mtime_ns and not _rounded(found.mtime_ns, mtime_ns):
            findings.append(Finding(name, f"backdated: recorded {_time(mtime_ns)}, found {_time(found.mtime_ns)}"))
        elif mtime_ns is not None and found.mtime_ns > mtime_ns:
            newer += 1
            if strict:
                findings.append(Finding(name, f"newer: recorded {_time(mtime_ns)}, found {_time(found.mtime_ns)}"))
    findings += _changes(changed, recorded, wanted, table)
    findings += _unknown(results, recorded)
    findings += _stale(truth, {name: seen[name] for name in wanted if len(wanted[name]) > 1})
    findings += [Finding(*claim) for claim in snapshot_claims(results, lambda name: _now(name, hashes))]
    findings += [Finding(*claim) for claim in checkpoint_claims(results)]
    journal.finish()
    return Verification(
        files=len(todo),
        findings=sorted(set(findings)),
        newer=newer,
        recalled=journal.recalled,
        begun=journal.begun,
        ledger_sha256=digest,
    )


def check_ledger(results: Path, folded: Folded) -> Iterator[Finding]:
    """Yield what is wrong with the ledger: against its own record, and against all other records."""
    import pyarrow.compute as pc

    path = Layout.at(results).ledger
    yield from _own_record(path)
    read: dict[str, Any] = {}
    for name in (path.name, INPUTS):
        try:
            read[name] = read_table(path.with_name(name))
        except BoldmillError as error:
            yield Finding(shown(error.where), f"the ledger {error.why}")
    table, inputs = read.get(path.name), read.get(INPUTS)
    if inputs is not None and not inputs.equals(folded.inputs):
        yield Finding(shown(path.with_name(INPUTS)), "the ledger does not hold the inputs that the records name")
    if table is None or table.equals(folded.outputs):
        return
    if table.schema != folded.outputs.schema:
        yield Finding(shown(path), "the ledger has other columns: run `snakemake audit -R ledger`")
        return
    keys = ("sha256", "record", "record_sha256")

    def rows(of: Any) -> dict[str, tuple[Any, ...]]:
        return dict(zip(of.column("path").to_pylist(), zip(*(of.column(k).to_pylist() for k in keys), strict=True),
                        strict=True))  # fmt: skip

    said, true = rows(table), rows(folded.outputs)
    for name in sorted(said.keys() | true.keys()):
        ours, theirs = said.get(name), true.get(name)
        if ours is None:
            yield Finding(name, "the ledger does not hold it yet: run `snakemake audit -R ledger`")
        elif theirs is None:
            record = str(ours[1])
            state = "damaged" if record in folded.faults else "there, but no longer names it"
            yield Finding(name, f"the record is {state if Path(record).exists() else 'missing'}: {record}")
        elif ours[2] != theirs[2]:
            yield Finding(str(theirs[1]), "the record changed after the ledger was written")
            if ours[0] != theirs[0]:
                yield Finding(name, f"the record changed after the ledger was written: {theirs[1]}")
        elif ours != theirs:
            yield Finding(name, f"the ledger was edited: it says {str(ours[0])[:12]}, the record {str(theirs[0])[:12]}")
    same = _strings(name for name in said if said[name] == true.get(name))  # all other rows were named
    left, right = (of.filter(pc.is_in(of.column("path"), value_set=same)) for of in (table, folded.outputs))
    if not tidy(left.unify_dictionaries()).equals(tidy(right)):
        yield Finding(shown(path), "the ledger was edited: it does not say of all outputs what their records say")


def _strings(values: Iterable[str]) -> Any:
    import pyarrow as pa

    return pa.array(list(values), pa.string())


def _own_record(path: Path) -> Iterator[Finding]:
    """Yield what is wrong between the ledger with its inputs and their own record."""
    name = prov_path(path)
    try:
        record = read_json(name)
        known = {item["path"]: item["sha256"] for item in record["outputs"]}
        edited = own_digest(record) != record.get(DIGEST)
    except FileNotFoundError:
        yield Finding(shown(path), f"the record is missing: {shown(name)}")
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding(shown(name), f"the record cannot be read ({type(error).__name__})")
        return
    if edited:
        yield Finding(shown(name), "the record was edited: it no longer has its own digest")
    for file in (path, path.with_name(INPUTS)):
        found = hash_file(file) if file.exists() else None
        said = known.get(shown(file))
        if found is None:
            yield Finding(shown(file), "missing")
        elif said != found:
            yield Finding(shown(file), f"the ledger was edited: recorded {str(said)[:12]}, found {found[:12]}")


def _raw_hashes(truth: Ledger) -> dict[str, set[str]]:
    """Return path -> every hash that a reader recorded of a file that is nobody's output."""
    found: dict[str, set[str]] = {}
    for path, sha256 in truth.raw_inputs():
        found.setdefault(path, set()).add(sha256)
    return found


def _changes(
    changed: dict[str, Found], recorded: dict[str, tuple[str, int | None]], wanted: dict[str, set[str]], table: Any
) -> Iterator[Finding]:
    """Yield the files whose content changed, with whose content they have now."""
    import pyarrow.compute as pc

    same = table.filter(pc.is_in(table.column("sha256"), value_set=_strings(f.sha256 or "" for f in changed.values())))
    owners: dict[str, list[str]] = {}
    for path, sha256 in zip(same.column("path").to_pylist(), same.column("sha256").to_pylist(), strict=True):
        owners.setdefault(sha256, []).append(path)
    for name, found in changed.items():
        old = recorded[name][0] if name in recorded else min(wanted[name])
        said = f"content changed: recorded {old[:12]}, found {str(found.sha256)[:12]}"
        alike = owners.get(str(found.sha256), [])
        swapped = [path for path in alike if path in changed and changed[path].sha256 == old]
        beside = [path for path in swapped or alike if Path(path).parent == Path(name).parent]
        if alike:  # frozen shards hold the same bytes as those they were made of: name the one beside it
            owner = (beside or swapped or alike)[0]
            said += f"; swapped with {owner}" if swapped else f"; it holds what {owner} should"
        yield Finding(name, said)


def _unknown(results: Path, recorded: dict[str, Any]) -> Iterator[Finding]:
    """Yield the files in folders of artefacts that no record knows."""
    for path in artefacts(results):
        if shown(path) not in recorded:
            yield Finding(shown(path), stranger(path))


def _stale(truth: Ledger, raw: dict[str, str | None]) -> Iterator[Finding]:
    """Yield what was made from an older content of an output, or of a raw file of which readers saw several."""
    found = list(truth.older_inputs())
    found += [(record, path) for record, path, sha256 in truth.readers_of(raw) if sha256 != raw[path]]
    for record, path in found:
        yield Finding(record.removesuffix(SUFFIX), f"stale: it was made from an older {path}")


def _now(name: str, hashes: dict[str, str | None]) -> str | None:
    """Return the hash of a shard, read now where no record led to it."""
    return hashes[name] if name in hashes else look(name).sha256


def _rounded(found: int, recorded: int) -> bool:
    return any(found == recorded // unit * unit for unit in COARSE_NS)


def _time(mtime_ns: int) -> str:
    return datetime.fromtimestamp(mtime_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of threads")
    return int(text)


def _digits(text: str) -> str:
    """Return the digits of a hash; an empty variable of a script must not pass for a check."""
    if not re.fullmatch(r"[0-9A-Fa-f]{8,64}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not the sha256 of a ledger, or its first 8 digits or more")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--outputs-only", action="store_true", help="do not read raw files")
    parser.add_argument("--strict", action="store_true", help="a newer modification time is a mismatch")
    parser.add_argument("--fresh", action="store_true", help="do not go on where a killed verification stopped")
    parser.add_argument("--threads", type=_number, default=4, help="files read at once (default: 4)")
    parser.add_argument("--ledger-sha256", type=_digits, metavar="HEX",
                        help="what the ledger must be (its first 8 digits or more)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object per mismatch")


def run(args: argparse.Namespace) -> int:
    """Verify; exit 1 on any mismatch."""
    done = verify(
        args.results,
        outputs_only=args.outputs_only,
        strict=args.strict,
        fresh=args.fresh,
        threads=args.threads,
        ledger_sha256=args.ledger_sha256 or "",
    )
    for finding in done.findings:
        print(json.dumps(finding._asdict()) if args.json else f"{finding.path}: {finding.problem}")
    if not args.json:
        if done.recalled:
            print(f"{done.recalled} files were read by a verification begun at {done.begun}; --fresh reads them again")
        if done.newer and not args.strict:
            print(f"{done.newer} files have later times than recorded, with the same content: a copy, or touched")
        print(f"ledger sha256 {done.ledger_sha256}")
        print(f"{done.files} files checked, {len(done.findings)} problems")
    return EXIT_FAILURE if done.findings else EXIT_OK
