"""Write the index. A file whose content did not change is not touched, so that nothing behind it is run again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from boldmill.atomic import atomic, canonical_json, sha256_text, write_text
from boldmill.errors import ConfigError
from boldmill.index.quarantine import to_tsv
from boldmill.index.read import METADATA_KEY, SCHEMA, ScanRow
from boldmill.paths import Layout

TOMBSTONES = ("scan_id", "ticket_sha256", "reason")


def json_text(value: Any) -> str:
    """Return readable, key-sorted JSON."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"


def write_if_changed(path: Path, text: str) -> bool:
    """Write text atomically unless the file already holds it; return whether it was written."""
    try:
        if path.read_bytes() == text.encode():
            return False
    except FileNotFoundError:
        pass
    write_text(path, text)
    return True


def write_tickets(layout: Layout, tickets: dict[str, dict[str, Any]]) -> tuple[dict[str, str], int]:
    """Write all tickets; return their hashes by scan id, and how many were new or changed."""
    names = sorted(tickets)

    def write(scan_id: str) -> tuple[str, bool]:
        text = json_text(tickets[scan_id])
        return sha256_text(text), write_if_changed(layout.ticket(scan_id), text)

    with ThreadPoolExecutor(4) as pool:  # the time goes into waiting for the disk
        written = list(pool.map(write, names))
    return {name: digest for name, (digest, _) in zip(names, written, strict=True)}, sum(new for _, new in written)


def read_tombstones(path: Path) -> list[tuple[str, str, str]]:
    """Return the rows of a table of tombstones, none where there is none.

    Raises
    ------
    ConfigError
        The table is damaged.
    """
    if not path.is_file():
        return []
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        if tuple(head.split("\t")) != TOMBSTONES:
            raise ValueError("its first line names other columns")
        return [(scan_id, digest, reason) for scan_id, digest, reason in (line.split("\t") for line in lines)]
    except ValueError as error:
        fix = "restore it, or delete it (then nothing says any more which scans left the index before)"
        raise ConfigError("cannot read the tombstones", path, f"it is damaged ({error})", fix) from error


def bury(layout: Layout, present: Iterable[str], quarantined: Iterable[str]) -> list[tuple[str, str, str]]:
    """Remove the tickets of scans that are gone; return all tombstones, those of earlier calls included.

    A tombstone is lifted when its scan comes back.
    """
    folder = layout.index.parent / "tickets"
    path = layout.index.parent / "tombstones.tsv"
    alive, refused = set(present), set(quarantined)
    stones: dict[str, tuple[str, str, str]] = {}
    for row in read_tombstones(path):
        stones[row[0]] = row
    for entry in os.scandir(folder) if folder.is_dir() else ():
        scan_id = entry.name.removesuffix(".json")
        if entry.name.startswith(".") or not entry.name.endswith(".json") or scan_id in alive:
            continue
        reason = "quarantined at ingest" if scan_id in refused else "no longer in the data sets, or filtered out"
        digest = sha256_text(Path(entry.path).read_text(encoding="utf-8"))
        stones[scan_id] = (scan_id, digest, reason)
        Path(entry.path).unlink(missing_ok=True)
    kept = [stones[scan_id] for scan_id in sorted(stones) if scan_id not in alive]
    write_if_changed(path, to_tsv(kept, TOMBSTONES))
    return kept


def write_participants(layout: Layout, buckets: dict[int, dict[str, Any]]) -> None:
    """Write one phenotype file per bucket and remove those of buckets nobody is in."""
    for bucket, value in buckets.items():
        write_if_changed(layout.participants(bucket), json_text(value))
    wanted = {layout.participants(bucket) for bucket in buckets}
    for path in layout.participants(0).parent.glob("bucket-*.json"):
        if path not in wanted:
            path.unlink(missing_ok=True)


def write_index(path: Path, rows: list[ScanRow], digest: str, n_buckets: int) -> None:
    """Write ``runs.parquet``: rows sorted by scan id, the same rows always giving the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"bucket": pa.int32(), "tr": pa.float64(), "n_volumes": pa.int32(), "has_t1w": pa.bool_()}
    about = canonical_json({"schema": SCHEMA, "settings": digest, "n_buckets": n_buckets})
    schema = pa.schema(
        [pa.field(name, kinds.get(name, pa.string())) for name in ScanRow._fields],
        metadata={METADATA_KEY: about.encode()},
    )
    ordered = sorted(rows)
    columns = [[row[i] for row in ordered] for i in range(len(ScanRow._fields))]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")
