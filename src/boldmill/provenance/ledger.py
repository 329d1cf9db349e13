"""Fold every provenance record below the results folder into one table, one row per output.

Example:
  boldmill ledger --results results --out results/provenance/ledger.parquet --config-json "$JSON"
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boldmill.atomic import atomic, read_json, sha256_file
from boldmill.errors import EXIT_OK, BoldmillError, DataFault
from boldmill.paths import Layout
from boldmill.provenance.record import MEMBER, SUFFIX, Recorder, prov_path
from boldmill.stages import Settings

FIELDS = [
    "path",
    "sha256",
    "size",
    "stage",
    "stage_version",
    "settings",
    "settings_digest",
    "started",
    "ended",
    "peak_rss_mib",
    "record",
]
ENVIRONMENT = ["boldmill", "python", "packages_digest", "host", "user", "slurm_job", "gpu"]


def records(results: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every record below a results folder with its path, in the order of paths."""
    for path in sorted(results.rglob(f"*{SUFFIX}")):
        yield path, read_json(path)


def rows(results: Path, out: Path) -> list[dict[str, Any]]:
    """Return one row per output; where two records name one output (rerun of part of a job), the later one wins.

    The record of the ledger itself is left out: a table cannot hold its own hash, and that of the last one is stale.
    """
    latest: dict[str, dict[str, Any]] = {}
    for path, record in records(results):
        if path.resolve() == prov_path(out).resolve():
            continue
        environment = record["environment"]
        shared = {name: record[name] for name in FIELDS[3:-1]}
        shared |= {name: environment[name] for name in ENVIRONMENT}
        shared |= {"git_commit": environment["git"]["commit"], "git_dirty": environment["git"]["dirty"]}
        shared |= {"command": " ".join(record["command"]), "record": path.as_posix()}
        shared["inputs"] = [{key: item[key] for key in ("path", "sha256", "size")} for item in record["inputs"]]
        for output in record["outputs"]:
            row = {**{key: output[key] for key in ("path", "sha256", "size")}, **shared}
            known = latest.get(row["path"])
            if known is None or known["ended"] <= row["ended"]:
                latest[row["path"]] = row
    return [latest[path] for path in sorted(latest)]


def schema() -> Any:
    """Return the Arrow schema of the ledger."""
    import pyarrow as pa

    file = pa.struct([("path", pa.string()), ("sha256", pa.string()), ("size", pa.int64())])
    kinds = {"size": pa.int64(), "stage_version": pa.int32(), "peak_rss_mib": pa.float64()}
    fields = [pa.field(name, kinds.get(name, pa.string())) for name in FIELDS]
    fields += [pa.field(name, pa.string()) for name in (*ENVIRONMENT, "git_commit", "command")]
    fields += [pa.field("git_dirty", pa.bool_()), pa.field("inputs", pa.list_(file))]
    return pa.schema(fields)


def write_ledger(results: Path, out: Path) -> int:
    """Write the ledger and return its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows(results, out), schema=schema())
    with atomic(out) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return int(table.num_rows)


def read_ledger(results: Path) -> list[dict[str, Any]]:
    """Return the rows of the ledger; a missing ledger is named with the command that writes it."""
    import pyarrow.parquet as pq

    path = Layout.at(results).ledger
    if not path.exists():
        raise BoldmillError("cannot audit", path, "there is no ledger yet", "run `snakemake audit`")
    return list(pq.read_table(path).to_pylist())


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--out", type=Path, required=True, help="ledger to write")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the ledger with its own record."""
    with Recorder(Settings(args.config_json), out=args.out):
        count = write_ledger(args.results, args.out)
    print(f"{args.out}: {count} outputs")
    return EXIT_OK
