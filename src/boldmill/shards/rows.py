"""Random access to the rows of one table across its shards: one row group is decoded at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boldmill.errors import BoldmillError, nearest
from boldmill.tables import KEYS, dtype_of

if TYPE_CHECKING:
    import pyarrow as pa


class TableRows:
    """Rows of a table, numbered over its shards in the order of ``paths``.

    An object may be sent to other processes: open files stay behind and are opened again there.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._open: dict[tuple[int, int], Any] = {}  # (process, shard) -> ParquetFile
        self._last: dict[tuple[str, ...], tuple[int, pa.Table]] = {}  # columns -> the row group decoded last

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_last": {}}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _groups(self) -> list[tuple[int, int, int]]:
        """Shard, row group, and rows of every row group."""
        found = []
        for shard in range(len(self.paths)):
            metadata = self._file(shard).metadata
            found += [(shard, g, metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)]
        return found

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum([rows for _, _, rows in self._groups], dtype=np.int64)])

    @cached_property
    def scan_ids(self) -> list[str]:
        """Scan id of every row."""
        ids: list[str] = []
        for shard in range(len(self.paths)):
            ids += self._file(shard).read(columns=["scan_id"], use_threads=False)["scan_id"].to_pylist()
        return ids

    @cached_property
    def _rows_of(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, scan_id in enumerate(self.scan_ids):
            found.setdefault(scan_id, []).append(row)
        return found

    def all_of(self, scan_id: str) -> list[int]:
        """Return the rows of a scan, by view or clip; an unknown scan raises :class:`BoldmillError`."""
        if scan_id not in self._rows_of:
            table = self.paths[0].parent.name if self.paths else "table"
            why = f"no row of {table} has it{nearest(scan_id, self._rows_of)}"
            raise BoldmillError("unknown scan", scan_id, why, "list the scans with Snapshot.scans(having=...)")
        return self._rows_of[scan_id]

    def at(self, scan_id: str) -> int:
        """Return the first row of a scan."""
        return self.all_of(scan_id)[0]

    def row(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Return some columns of one row as Python values."""
        table, inside = self._locate(index, columns)
        return {name: table.column(name)[inside].as_py() for name in columns}

    def array(self, index: int, column: str) -> npt.NDArray[Any]:
        """Return an array of one row in its stored shape (read-only); a missing value raises BoldmillError."""
        values = self.find(index, column)
        if values is None:
            raise BoldmillError("no value", f"row {index}, column {column}", "it is null", "read a row that has it")
        return values

    def find(self, index: int, column: str) -> npt.NDArray[Any] | None:
        """Return an array of one row in its stored shape (read-only); ``None`` where the value is missing."""
        import pyarrow as pa

        schema = self._schema(index)
        field = schema.field(column)
        axes = field.metadata[b"shape"].decode().split(",")
        named = [axis for axis in axes if axis in schema.names]
        table, inside = self._locate(index, [column, *named])
        value = table.column(column)[inside]
        if not value.is_valid:
            return None
        sizes = [
            table.column(axis)[inside].as_py() if axis in named else int(schema.metadata[axis.encode()])
            for axis in axes
        ]
        if pa.types.is_large_binary(field.type):
            return np.frombuffer(value.as_buffer(), dtype=dtype_of(schema, column)).reshape(sizes)
        values: npt.NDArray[Any] = value.values.to_numpy(zero_copy_only=True).reshape(sizes)
        return values

    def key(self, index: int, table: str) -> tuple[Any, ...]:
        """Return the key of a row: scan id, and view or clip."""
        return tuple(self.row(index, KEYS[table]).values())

    def _schema(self, index: int) -> pa.Schema:
        shard, _, _ = self._groups[self._group_of(index)]
        return self._file(shard).schema_arrow

    def _group_of(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _locate(self, index: int, columns: Sequence[str]) -> tuple[pa.Table, int]:
        number = self._group_of(index)
        shard, group, _ = self._groups[number]
        wanted = tuple(columns)
        last, table = self._last.get(wanted, (-1, None))
        if table is None or last != number:
            table = self._file(shard).read_row_group(group, columns=list(columns), use_threads=False)
            self._last[wanted] = (number, table)
        return table, index - int(self._starts[number])

    def _file(self, shard: int) -> Any:
        import pyarrow.parquet as pq

        place = (os.getpid(), shard)
        if place not in self._open:
            self._open[place] = pq.ParquetFile(self.paths[shard], memory_map=True)
        return self._open[place]
