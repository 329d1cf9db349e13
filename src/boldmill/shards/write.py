"""Write one Parquet shard: sorted rows, row groups by rows and bytes, the same bytes for the same rows.

Columns are compressed with zstd, except large arrays: noise in float16 shrinks by less than a tenth and would be read
five times slower. Each is one plain page per row group, so that a reader may fetch any value straight from its place
(:mod:`boldmill.shards.pages`), however large the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import atomic, write_json
from boldmill.errors import BoldmillError, DataFault
from boldmill.tables import KEYS

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 32 << 20
"""A row group is closed at this size: about the clips of one scan. Readers that decode whole groups read no more than
that for a row, and the footer of a terabyte stays below 100 MB (one entry per group and column)."""

PAGE_BYTES = 1 << 30
"""More than a row group has: each column of a group is one page."""

COMPRESSION_LEVEL = 3


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
        large = {f.name for f in schema if pa.types.is_large_binary(f.type)}
        small = [f.name for f in schema if not pa.types.is_nested(f.type) and f.name not in large]
        paths = [path for field in schema for path in leaf_paths(field)]
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression={path: "NONE" if path in large else "zstd" for path in paths},
            compression_level={path: COMPRESSION_LEVEL for path in paths if path not in large},
            data_page_size=PAGE_BYTES,
            use_dictionary=[f.name for f in schema if pa.types.is_string(f.type)],
            write_statistics=small,
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

    if pa.types.is_map(field.type):
        return [f"{field.name}.key_value.key", f"{field.name}.key_value.value"]
    return [f"{field.name}.list.element"] if pa.types.is_nested(field.type) else [field.name]


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
