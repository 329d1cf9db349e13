"""Write one Parquet shard: sorted rows, row groups by rows and bytes, the same bytes for the same rows.

Arrays of numbers are stored as they are, all else as zstd. Measured on one core (flat maps of a real surface run, real
Schaefer-100 series of ds003059; size as a share of the raw bytes, speed of pyarrow's decoding from the cache, where
read() of the raw bytes gives 4.2 GB/s):

| column | as it is | zstd 1 | zstd 3 | zstd -5, lz4 | byte stream split, zstd 3 |
|---|---|---|---|---|---|
| flat clips, float16 | 2.2 GB/s | 0.91, 0.42 GB/s | 0.91, 0.52 GB/s | 1.00, 1.8 GB/s | 0.75, 0.06 GB/s |
| flat clips, int8 | 2.9 GB/s | 0.86, 0.45 GB/s | 0.79, 0.33 GB/s | 1.00, 0.7 GB/s | - |
| series, float32 | 3.4 GB/s | 0.93, 0.66 GB/s | 0.93, 0.64 GB/s | - | - |
| pFC, float16 | 2.5 GB/s | 0.91, 0.63 GB/s | 0.91, 0.71 GB/s | - | - |
| mean and SD, float32 | 3.8 GB/s | 0.90, 0.63 GB/s | 0.90, 0.50 GB/s | - | - |
| FC, float32 list | 0.46 GB/s | 0.93, 0.24 GB/s | 0.93, 0.15 GB/s | - | 0.86, 0.05 GB/s |

A tenth of the size costs four fifths of the speed; who wants half the size asks for int8 clips. A column of a row group
is one page without dictionary, so that a reader may fetch any value straight from its place in the file
(:mod:`boldmill.shards.pages`), however large the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import atomic, write_json
from boldmill.errors import BoldmillError, DataFault
from boldmill.tables import KEYS, columns

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 32 << 20
"""A row group is closed at this size: about the clips of one scan. Readers that decode whole groups read no more than
that for a row, and the footer of a terabyte stays below 100 MB (one entry per group and column)."""

COMPRESSION_LEVEL = 3

PAGE_BYTES = 1 << 30
PAGE_ROWS = 1 << 30
"""No row group is as large: a column chunk is one page."""

FILTERED = (
    *("scan_id", "dataset", "subject", "atlas", "session", "task", "run", "kind", "bucket", "site", "family"),
    *("tr", "n_volumes", "mean_fd", "n_clips", "view", "clip", "start"),
)
"""Columns people filter by: with minimum and maximum of every row group. Others would only lengthen the footer."""


class ShardWriter:
    """Collect rows and write them as row groups; made by :func:`shard_writer`.

    Rows must come sorted by the key of the table. Only one row group is held in memory.
    """

    def __init__(self, path: Path, schema: pa.Schema, row_group_rows: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.table = schema.metadata[b"table"].decode()
        self.schema, self.row_group_rows = schema, row_group_rows
        self.rows = 0
        self._pending: list[Mapping[str, Any]] = []
        self._bytes = 0
        self._last: tuple[Any, ...] | None = None
        numbers = {c.name for c in columns(self.table) if c.type in ("array", "vector")}
        packed = [leaf for field in schema if field.name not in numbers for leaf in leaf_paths(field)]
        plain = [leaf for field in schema if field.name in numbers for leaf in leaf_paths(field)]
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression=dict.fromkeys(packed, "zstd") | dict.fromkeys(plain, "none"),
            compression_level=dict.fromkeys(packed, COMPRESSION_LEVEL),
            use_dictionary=[f.name for f in schema if pa.types.is_string(f.type)],
            write_statistics=[name for name in schema.names if name in FILTERED],
            data_page_size=PAGE_BYTES,
            max_rows_per_page=PAGE_ROWS,
        )

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        key = tuple(row[name] for name in KEYS[self.table])
        if self._last is not None and key <= self._last:
            raise BoldmillError("cannot write shard", self.table, f"row {key} after {self._last}", "give sorted rows")
        self._last = key
        self._pending.append(row)
        self._bytes += sum(_size(value) for value in row.values())
        if len(self._pending) >= self.row_group_rows or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self.schema))
            self.rows += len(self._pending)
            self._pending, self._bytes = [], 0

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._writer.close()


@contextmanager
def shard_writer(path: str | Path, schema: pa.Schema, row_group_rows: int) -> Iterator[ShardWriter]:
    """Yield a writer; the file appears at ``path`` when the block ends without an error. No rows is a valid shard."""
    with atomic(path) as temporary:
        writer = ShardWriter(temporary, schema, row_group_rows)
        yield writer
        writer.close()


def leaf_paths(field: pa.Field) -> list[str]:
    """Return the names Parquet gives to the columns of an Arrow field."""
    import pyarrow as pa

    if not pa.types.is_nested(field.type):
        return [field.name]
    inner = field.type.value_type
    parts = [f".{inner.field(number).name}" for number in range(inner.num_fields)] or [""]
    return [f"{field.name}.list.element{part}" for part in parts]


def quarantine_path(out: Path) -> Path:
    """Return the file beside a shard that lists the scans its stage refused."""
    return out.with_suffix(".quarantine.json")


def write_quarantine(out: Path, stage: str, faults: Mapping[str, DataFault]) -> Path:
    """Write the scans refused (scan id -> fault) beside a shard, an empty list too, and return the path."""
    return write_json(quarantine_path(out), {"schema": 1, "stage": stage, "scans": quarantine_entries(faults)})


def quarantine_entries(faults: Mapping[str, DataFault]) -> dict[str, dict[str, str]]:
    """Return scan id -> status, reason and fix, as in every manifest."""
    return {s: {"status": "quarantined", "reason": f.why, "fix": f.fix} for s, f in sorted(faults.items())}


def _size(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    return int(getattr(value, "nbytes", 0))
