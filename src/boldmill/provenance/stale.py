"""Name what would not be made again as it is, and why: settings, stage versions, inputs.

Compared are the records in the ledger with the present configuration (its value of every key a stage reads), with the
stage versions of this code, and with the inputs on disk: a raw file counts as changed where its size differs, or its
content, which is read only if the file was written, moved or touched after its reader began. What was made from
something stale is stale too; only the index is no reason by itself: `snakemake ingest` rewrites just the tickets whose
content changed. Frozen shards do not follow the shards they were made of. A model that was trained on somebody who
withdrew consent since is stale. Other versions of packages are counted, but are no reason, because no stage is made
again for them.

Exit status: 0 nothing is stale, 1 something is, 2 the command line or the configuration is wrong.

Examples:
  boldmill audit stale                                   against config.yaml
  boldmill audit stale --config config.yaml my.yaml      later files win, as with --configfile
  boldmill audit stale --list                            one line per file
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_FAILURE, EXIT_OK
from boldmill.provenance.claims import WEIGHTS
from boldmill.provenance.current import Current
from boldmill.provenance.hashing import look
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.lifetimes import is_frozen
from boldmill.provenance.record import MEMBER
from boldmill.provenance.withdrawn import note as withdrawn

NOT_PASSED_ON = "ingest"
"""Stage whose outputs are compared by content: being stale itself, it makes nothing else so."""
SHOWN = 5
"""Reasons named per stage in the table."""


@dataclass(kw_only=True)
class Stale:
    """Number of outputs by stage, and path -> (stage, reasons) of every stale one."""

    outputs: Counter[str] = field(default_factory=Counter)
    files: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    other_packages: int = 0


def find(ledger: Ledger, current: Current) -> Stale:
    """Return all stale outputs of a ledger."""
    table = ledger.outputs.table
    names = ("path", "stage", "settings", "record", "packages_digest")
    rows = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    found = Stale(outputs=Counter(stage for _, stage, *_ in rows))
    found.other_packages = sum(digest != _packages() for *_, digest in rows)
    by_record = _reasons_of_inputs(ledger)
    stage_of = {record: stage for _, stage, _, record, _ in rows}
    own: dict[str, list[str]] = {}  # reasons of the outputs of a record, of whichever
    for path, stage, settings, record, _ in rows:
        reasons = [*current.reasons(stage, path, settings, record), *by_record.get(record, [])]
        if path.endswith(WEIGHTS) and (gone := withdrawn(path)):
            reasons.append(gone)
        if reasons:
            found.files[path] = (stage, reasons)
            if stage != NOT_PASSED_ON:
                own.setdefault(record, reasons)
    behind = _behind(ledger, set(own))
    for path, stage, _, record, _ in rows:
        if record in behind and path not in found.files:
            found.files[path] = (
                stage,
                [f"made from what {stage_of.get(behind[record], 'a command')} wrote, which is stale"],
            )
    return found


def _packages() -> str:
    from boldmill.provenance.machine import packages

    return packages()[0]


def _reasons_of_inputs(ledger: Ledger) -> dict[str, list[str]]:
    """Return record -> what changed of its own inputs since."""
    found: dict[str, list[str]] = {}
    for record, path in ledger.older_inputs():
        found.setdefault(record, []).append(f"made again since: {path}")
    changed = dict(_changed_raw(ledger))
    for record, path, sha256 in ledger.readers_of(changed):
        state, now = changed[path]
        if now != sha256:
            found.setdefault(record, []).append(f"{state}: {path}")
    return found


def _changed_raw(ledger: Ledger) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield (path, (what happened, its hash now)) of raw files that may no longer be what somebody read."""
    inputs, started = ledger.inputs.table, {}
    table = ledger.outputs.table
    for record, time in zip(table.column("record").to_pylist(), table.column("started").to_pylist(), strict=True):
        started[record] = time
    hashes: dict[str, set[str]] = {}
    for path, sha256 in ledger.raw_inputs():
        hashes.setdefault(path, set()).add(sha256)
    first: dict[str, tuple[str, int]] = {}
    for record, path, size in zip(*(inputs.column(n).to_pylist() for n in ("record", "path", "size")), strict=True):
        if path in hashes and record in started:
            first[path] = min(first.get(path, (started[record], size)), (started[record], size), key=lambda one: one[0])
    for path, (time, size) in first.items():
        try:
            member = MEMBER in path and not Path(path).exists()
            state = Path(path.partition(MEMBER)[0] if member else path).stat()
        except (OSError, ValueError):
            now = look(path)
            yield path, ("gone" if now.gone else now.why, now.sha256)
            continue
        changed = max(state.st_mtime, state.st_ctime)  # a copy may bring its old time along
        young = changed > datetime.fromisoformat(time).timestamp()
        if young or (state.st_size != size and not member) or len(hashes[path]) > 1:
            now = look(path)
            if hashes[path] != {now.sha256}:
                yield path, ("changed on disk" if now.sha256 else now.why, now.sha256)


def _behind(ledger: Ledger, stale: set[str]) -> dict[str, str]:
    """Return record -> a record it was made from that is stale, for everything downstream of ``stale``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    outputs, inputs = ledger.outputs.table, ledger.inputs.table
    at = pc.index_in(inputs.column("path"), value_set=outputs.column("path").combine_chunks())
    table = pa.table({"by": outputs.column("record").take(at), "record": inputs.column("record")})
    made_from: dict[str, set[str]] = {}
    edges = table.filter(pc.is_valid(table.column("by"))).group_by(["by", "record"]).aggregate([])
    for source, reader in zip(edges.column("by").to_pylist(), edges.column("record").to_pylist(), strict=True):
        if not is_frozen(reader):
            made_from.setdefault(source, set()).add(reader)
    found: dict[str, str] = {}
    todo = deque(sorted(stale))
    while todo:
        source = todo.popleft()
        for reader in sorted(made_from.get(source, ())):
            if reader not in found and reader != source:
                found[reader] = source
                todo.append(reader)
    return found


def table_lines(found: Stale) -> Iterator[str]:
    """Yield the table: per stage how many outputs are stale, and why."""
    why: dict[str, Counter[str]] = {}
    for stage, reasons in found.files.values():
        why.setdefault(stage, Counter()).update(reasons)
    stale = Counter(stage for stage, _ in found.files.values())
    for stage in sorted(found.outputs):
        if not stale[stage]:
            continue
        reasons = sorted(why[stage], key=lambda reason: (-why[stage][reason], reason))
        said = "; ".join(reasons[:SHOWN])
        more = f"; and {len(reasons) - SHOWN} more reasons (--list)" if len(reasons) > SHOWN else ""
        yield f"{stage}: {stale[stage]} of {found.outputs[stage]} outputs, because {said}{more}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files (default: config.yaml)")
    parser.add_argument("--results", type=Path, help="results folder (default: the configuration's, else results)")
    parser.add_argument("--list", action="store_true", help="one line per stale file")
    parser.add_argument("--json", action="store_true", help="one JSON object per stale file")


def open_config(files: list[str] | None) -> Any:
    """Return the configuration of the command line, that of ``config.yaml`` where none is given, or None."""
    from boldmill.config.load import load

    if not files and not Path("config.yaml").is_file():
        return None
    return load(*(files or ["config.yaml"]))


def open_current(config: Any, results: Path) -> Current:
    """Return what judges outputs by the present configuration, and by the index where there is one."""
    from boldmill.index.read import read_index
    from boldmill.paths import Layout

    return Current(config, read_index(results) if Layout.at(results).index.is_file() else None)


def run(args: argparse.Namespace) -> int:
    """Print the table; exit 1 where something is stale."""
    config = open_config(args.config)
    results = args.results or Path(config.results if config else "results")
    found = find(Ledger.load(results), open_current(config, results))
    for path in sorted(found.files) if args.list or args.json else ():
        stage, reasons = found.files[path]
        facts = {"path": path, "stage": stage, "reasons": reasons}
        print(json.dumps(facts) if args.json else f"{path}: {stage}: {'; '.join(reasons)}")
    if args.json:
        return EXIT_FAILURE if found.files else EXIT_OK
    if not args.list:
        print("\n".join(table_lines(found)), end="\n" if found.files else "")
    if config is None:
        print("no configuration was given and there is no config.yaml: settings were not compared")
    if found.other_packages:
        print(f"{found.other_packages} outputs were made with other versions of packages (not counted as stale)")
    print(f"{found.outputs.total()} outputs, {len(found.files)} stale")
    return EXIT_FAILURE if found.files else EXIT_OK
