"""What shards hold: rows, columns, sizes and ranges, from the footers, the small columns and a sample of the arrays.

Axes: T time or frames, P parcels, E edges, N pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boldmill.errors import BoldmillError, ConfigError
from boldmill.shards.pages import readable
from boldmill.shards.rows import TableRows
from boldmill.table_columns import Column
from boldmill.tables import SCHEMA_VERSION
from boldmill.tables import columns as columns_of

if TYPE_CHECKING:
    from boldmill.shards.reader import Snapshot

Place = tuple[str, str]
"""Table and atlas (empty where the table has none)."""

HOURLY = ("flat_clips", "timeseries")
"""Tables whose size per hour of fMRI is told."""


def find(path: Path) -> tuple[dict[Place, list[Path]], Snapshot | None]:
    """Return the shards of every table at ``path``: a shard, a folder of them, or the manifest of a snapshot.

    Raises
    ------
    ConfigError
        There is nothing of ours there.
    """
    if path.suffix == ".json":
        from boldmill.shards.reader import Snapshot

        snapshot = Snapshot.load(path)
        listed = {(s["table"], s.get("atlas", "")) for s in snapshot.manifest["shards"]}
        return {place: snapshot.paths(place[0], place[1] or None) for place in sorted(listed)}, snapshot
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    found: dict[Place, list[Path]] = defaultdict(list)
    for file in files:
        if place := place_of(file, strict=path == file):
            found[place].append(file)
    if not found:
        fix = "name a shard, a folder of shards or the manifest.json of a snapshot"
        raise ConfigError("nothing to describe", path, "it holds no shards", fix)
    return dict(sorted(found.items())), None


def place_of(file: Path, *, strict: bool) -> Place | None:
    """Return table and atlas of a shard; ``None`` for another Parquet file, unless ``strict``."""
    import pyarrow.parquet as pq

    with readable(file):
        texts = pq.read_schema(file).metadata or {}
    if b"table" in texts and b"schema_version" in texts:
        version = texts[b"schema_version"].decode()
        if version != str(SCHEMA_VERSION):
            why = f"its schema version is {version}, this boldmill reads {SCHEMA_VERSION}"
            raise BoldmillError("cannot read the shard", file, why, "rebuild the shards")
        return texts[b"table"].decode(), texts.get(b"atlas", b"").decode()
    if strict:
        raise ConfigError("not a shard", file, "its schema names no table", "name a file below results/shards")
    return None


def describe_table(place: Place, paths: Sequence[Path], n_sampled: int) -> dict[str, Any]:
    """Return the facts of one table.

    Parameters
    ----------
    place : tuple
        Table and atlas.
    paths : sequence of Path
        Its shards.
    n_sampled : int
        Rows, evenly spread, whose arrays are read for ranges.
    """
    import pyarrow.parquet as pq

    table, atlas = place
    footers = [pq.read_metadata(path) for path in paths]
    stored: dict[str, dict[str, Any]] = defaultdict(lambda: {"bytes": 0, "raw": 0, "codecs": set()})
    group_rows = []
    for footer in footers:
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            group_rows.append(group.num_rows)
            for column in range(group.num_columns):
                chunk = group.column(column)
                entry = stored[chunk.path_in_schema.split(".")[0]]
                entry["bytes"] += chunk.total_compressed_size
                entry["raw"] += chunk.total_uncompressed_size
                entry["codecs"].add("none" if chunk.compression == "UNCOMPRESSED" else chunk.compression.lower())
    rows = TableRows(paths)
    sampled = np.unique(np.linspace(0, len(rows) - 1, min(n_sampled, len(rows))).round().astype(int)).tolist()
    size = sum(path.stat().st_size for path in paths)
    facts: dict[str, Any] = {
        "table": table,
        "atlas": atlas,
        "shards": len(paths),
        "rows": len(rows),
        "scans": len(set(rows.column("scan_id").tolist())),
        "row_groups": len(group_rows),
        "rows_per_group": [min(group_rows), max(group_rows)] if group_rows else [0, 0],
        "bytes": size,
        "bytes_per_row": round(size / len(rows), 1) if len(rows) else 0.0,
        "rows_sampled": len(sampled),
        "columns": [
            {**_static(rows, column), **_stored(stored[column.name]), **_range(rows, column, sampled)}
            for column in columns_of(table)
        ],
    }
    if table in HOURLY and len(rows):
        known, share = hours(rows, table)
        facts["hours"], facts["hours_known"] = round(known, 4), round(share, 4)
        if known:
            facts["bytes_per_hour"] = round(size * share / known)
    return facts


def hours(rows: TableRows, table: str) -> tuple[float, float]:
    """Return the hours of fMRI in a table, and the share of its values that have a known TR.

    Time that several clips share counts once.
    """
    tr = rows.column("tr").astype(np.float64)
    if table == "timeseries":
        volumes = rows.column("n_volumes")
        return float(np.nansum(volumes * tr)) / 3600, float(volumes[~np.isnan(tr)].sum() / max(volumes.sum(), 1))
    last: dict[str, float] = {}
    ends = (rows.column("start") + rows.column("n_frames")) * tr
    for scan_id, end in zip(rows.column("scan_id"), ends.tolist(), strict=True):
        last[scan_id] = max(end, last.get(scan_id, 0.0))
    return sum(last.values()) / 3600, 1.0


def _static(rows: TableRows, column: Column) -> dict[str, Any]:
    """Return what the schema says of a column; the shape in numbers where all rows have one."""
    field = rows.schemas[0].field(column.name) if rows.schemas else None
    texts = {} if field is None else {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    kind = f"{texts.get('dtype', column.dtype)} array" if column.type in ("array", "vector") else column.type
    facts = {"name": column.name, "type": kind, "unit": texts.get("unit", column.unit), "source": column.source}
    facts |= {"description": column.description, "axes": column.shape, "shape": ""}
    if column.shape and len(rows):
        facts["shape"] = " x ".join(_extent(rows, axis) for axis in column.shape.split(","))
    return facts


def _extent(rows: TableRows, axis: str) -> str:
    schema = rows.schemas[0]
    if axis not in schema.names:
        return str(schema.metadata.get(axis.encode(), b"?").decode())
    sizes = rows.column(axis)
    return f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()}..{sizes.max()}"


def _stored(entry: dict[str, Any]) -> dict[str, Any]:
    ratio = entry["bytes"] / entry["raw"] if entry["raw"] else 1.0
    return {"bytes": entry["bytes"], "codec": "+".join(sorted(entry["codecs"])), "ratio": round(ratio, 3)}


def _range(rows: TableRows, column: Column, sampled: Sequence[int]) -> dict[str, Any]:
    """Return ``low``, ``high``, the share of NaN and of missing rows; of texts, how many differ."""
    if column.type in ("array", "vector"):
        arrays = [rows.find(row, column.name) for row in sampled]
        there = [array.astype(np.float64, copy=False).ravel() for array in arrays if array is not None]
        missing = 1 - len(there) / len(sampled) if sampled else 0.0
        return {"sampled": True, "missing": round(missing, 4), **_limits(there)}
    if not len(rows):
        return {}
    values = rows.column(column.name)
    if column.type == "string":
        return {"distinct": len(set(values.tolist())), "example": str(values[0])}
    if values.dtype != object:
        return _limits([values.astype(np.float64)])
    return {}


def _limits(arrays: Sequence[Any]) -> dict[str, Any]:
    counted = sum(array.size for array in arrays)
    finite = [array[np.isfinite(array)] for array in arrays]
    finite = [array for array in finite if array.size]
    if not counted:
        return {}
    nan = sum(int(np.isnan(array).sum()) for array in arrays) / counted
    ends = {"low": min(float(a.min()) for a in finite), "high": max(float(a.max()) for a in finite)} if finite else {}
    return {**ends, "nan": round(nan, 6)}
