"""Random access to the rows of one table across its shards.

Large arrays are read straight from their place in the file (:mod:`boldmill.shards.pages`), at the speed of read() and
whatever the order. Fixed-size lists and compressed arrays are decoded by row group, and recent groups are kept. Small
columns are read whole when first asked for. A column that nobody asks for is not read.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boldmill.errors import BoldmillError, nearest
from boldmill.shards.pages import PREFIX, OpenFiles, offsets_before, plain_end, readable
from boldmill.tables import KEYS, dtype_of

if TYPE_CHECKING:
    import pyarrow as pa

KEEP_BYTES = 256 << 20
"""Decoded row groups kept by one object."""

KEEP_FOOTERS = 64
"""Files kept open for their footers and decoded columns."""

Ints = npt.NDArray[np.int64]


class TableRows:
    """Rows of a table, numbered over its shards in the order of ``paths``.

    Any number of threads may use an object, and it may be sent to other processes: open files and decoded groups stay.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._files = OpenFiles(self.paths)
        self._small: dict[str, npt.NDArray[Any]] = {}
        self._placed: dict[str, Ints] = {}
        self._kinds: dict[tuple[int, str], tuple[tuple[str | int, ...], str]] = {}
        self._decoded: OrderedDict[tuple[int, str], pa.Array] = OrderedDict()
        self._lock = RLock()
        self._parquets: OrderedDict[tuple[int, int], Any] = OrderedDict()  # (process, shard) -> ParquetFile

    def __getstate__(self) -> dict[str, Any]:
        here = ("_decoded", "_parquets", "_lock")
        return {key: value for key, value in self.__dict__.items() if key not in here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._decoded, self._parquets, self._lock = OrderedDict(), OrderedDict(), RLock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _groups(self) -> list[tuple[int, int, int]]:
        """Shard, row group, and rows of every row group."""
        return [
            (shard, group, metadata.row_group(group).num_rows)
            for shard in range(len(self.paths))
            for metadata in [self._parquet(shard).metadata]
            for group in range(metadata.num_row_groups)
        ]

    @cached_property
    def _starts(self) -> Ints:
        return np.concatenate([[0], np.cumsum([rows for _, _, rows in self._groups], dtype=np.int64)])

    @cached_property
    def _shard_of(self) -> Ints:
        """Shard of every row."""
        return np.repeat([shard for shard, _, _ in self._groups], np.diff(self._starts)).astype(np.int64)

    @cached_property
    def schemas(self) -> list[pa.Schema]:
        """Schema of every shard."""
        return [self._parquet(shard).schema_arrow for shard in range(len(self.paths))]

    @cached_property
    def scan_ids(self) -> list[str]:
        """Scan id of every row."""
        return list(self.column("scan_id"))

    @cached_property
    def _rows_of(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, scan_id in enumerate(self.scan_ids):
            found.setdefault(scan_id, []).append(row)
        return found

    def all_of(self, scan_id: str) -> list[int]:
        """Return the rows of a scan, by view or clip; an unknown scan raises :class:`BoldmillError`."""
        if scan_id not in self._rows_of:
            table = self.schemas[0].metadata[b"table"].decode() if self.paths else "table"
            why = f"no row of {table} has it{nearest(scan_id, self._rows_of)}"
            raise BoldmillError("unknown scan", scan_id, why, "list the scans with Snapshot.scans(having=...)")
        return self._rows_of[scan_id]

    def at(self, scan_id: str) -> int:
        """Return the first row of a scan."""
        return self.all_of(scan_id)[0]

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a small column of all rows: numbers, or an object array of Python values."""
        import pyarrow as pa

        if name not in self._small:
            parts = [self._column_of(shard, name) for shard in range(len(self.paths))]
            kind = parts[0].type if parts else pa.string()
            whole = pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=kind)
            if pa.types.is_string(kind):  # equal texts share one object
                coded = whole.combine_chunks().dictionary_encode()
                texts = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
                self._small[name] = texts[coded.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)]
            elif pa.types.is_primitive(kind):
                self._small[name] = whole.to_numpy()
            else:
                values = np.empty(len(whole), dtype=object)
                values[:] = whole.to_pylist()
                self._small[name] = values
        return self._small[name]

    def _column_of(self, shard: int, name: str) -> pa.ChunkedArray:
        with readable(self.paths[shard]):
            return self._parquet(shard).read(columns=[name], use_threads=False)[name]

    def row(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Return some small columns of one row as Python values."""
        self._shard(index)  # refuses a row outside
        values = ((name, self.column(name)[index]) for name in columns)
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in values}

    def array(self, index: int, column: str) -> npt.NDArray[Any]:
        """Return an array of one row in its stored shape; a missing value raises BoldmillError. Do not write to it."""
        values = self.find(index, column)
        if values is None:
            raise BoldmillError("no value", f"row {index}, column {column}", "it is null", "read a row that has it")
        return values

    def find(self, index: int, column: str) -> npt.NDArray[Any] | None:
        """Return an array of one row in its stored shape; ``None`` where the value is missing. Do not write to it."""
        schema = self.schemas[self._shard(index)]
        axes = (schema.field(column).metadata or {}).get(b"shape", b"").decode().split(",")
        if any(axis not in schema.names and axis.encode() not in schema.metadata for axis in axes):
            return None  # a shard without any value does not know their size
        shape, dtype = self.kind(index, column)
        out = np.empty(shape, dtype)
        if self._fill(np.array([index]), column, [out]):
            return out
        return self._decode(index, column, shape, dtype)

    def read(self, indices: Sequence[int] | Ints, column: str, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return an array column of some rows, stacked: (rows, axes of one row).

        Parameters
        ----------
        indices : sequence of int
            Rows, in any order; neighbours in the file that follow each other are read together.
        column : str
            An ``array`` or ``vector`` column.
        out : array, optional
            Where to put them, C-contiguous: spares a copy into pinned or shared memory.

        Raises
        ------
        BoldmillError
            The rows have several shapes or dtypes, or one has no value.
        """
        rows = np.asarray(indices, np.int64)
        shape, dtype = self._shared(rows, column)
        if out is None:
            out = np.empty((len(rows), *shape), dtype)
        if not self._fill(rows, column, list(out)):
            for place, index in enumerate(rows.tolist()):
                out[place] = self.array(index, column)
        return out

    def _shared(self, rows: Ints, column: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype that rows have in common."""
        kinds = {self._axes(shard, column) for shard in set(self._shard_of[rows].tolist())}
        sizes = [{int(n) for n in np.unique(self.column(axis)[rows])} if isinstance(axis, str) else {axis}
                 for axis in next(iter(kinds), ((), ""))[0]]  # fmt: skip
        if len(kinds) > 1 or any(len(found) > 1 for found in sizes):
            why = "their shapes or dtypes differ"
            raise BoldmillError("cannot stack rows", f"column {column}", why, "read them one by one")
        return tuple(found.pop() for found in sizes), next(iter(kinds), ((), "<f4"))[1]

    def _axes(self, shard: int, column: str) -> tuple[tuple[str | int, ...], str]:
        """Axes of an array column, each a size or the column that holds it, and its dtype."""
        if (shard, column) not in self._kinds:
            schema = self.schemas[shard]
            axes = schema.field(column).metadata[b"shape"].decode().split(",")
            sizes = tuple(axis if axis in schema.names else int(schema.metadata[axis.encode()]) for axis in axes)
            self._kinds[shard, column] = (sizes, dtype_of(schema, column))
        return self._kinds[shard, column]

    def kind(self, index: int, column: str) -> tuple[tuple[int, ...], str]:
        """Return shape and numpy dtype string of an array of one row."""
        axes, dtype = self._axes(self._shard(index), column)
        return tuple(int(self.column(axis)[index]) if isinstance(axis, str) else axis for axis in axes), dtype

    def key(self, index: int, table: str) -> tuple[Any, ...]:
        """Return the key of a row: scan id, and view or clip."""
        return tuple(self.row(index, KEYS[table]).values())

    def _fill(self, rows: Ints, column: str, outs: Sequence[npt.NDArray[Any]]) -> bool:
        """Read rows straight from their place; ``False`` where the column is laid out otherwise."""
        offsets = self._places(column)[rows].tolist()
        if min(offsets, default=0) < 0:
            return False
        shards, n = self._shard_of[rows].tolist(), len(rows)
        stored = np.zeros((n, 1), "<u4")
        first = 0
        while first < n:
            buffers, end, last = [], offsets[first], first
            while last < n and offsets[last] == end and shards[last] == shards[first]:
                buffers += [stored[last], outs[last]]
                end, last = end + outs[last].nbytes + PREFIX, last + 1
            self._files.fill(shards[first], offsets[first] - PREFIX, buffers)
            first = last
        if all(length == out.nbytes for length, out in zip(stored[:, 0].tolist(), outs, strict=True)):
            return True
        self._placed[column] = np.full(len(self), -1)  # written by another hand: decode
        return False

    def _places(self, column: str) -> Ints:
        """Where the column's value of every row begins in its file; -1: it must be decoded."""
        import pyarrow as pa

        if column not in self._placed:
            offsets = np.full(len(self), -1, np.int64)
            for number, (shard, group, rows) in enumerate(self._groups):
                schema, metadata = self.schemas[shard], self._parquet(shard).metadata
                field = schema.field(column)
                if field.nullable or not pa.types.is_large_binary(field.type):
                    continue
                inside = slice(self._starts[number], self._starts[number + 1])
                axes, dtype = self._axes(shard, column)
                width = np.full(rows, np.dtype(dtype).itemsize, np.int64)
                for axis in axes:
                    width *= self.column(axis)[inside] if isinstance(axis, str) else axis
                end = plain_end(metadata.row_group(group).column(metadata.schema.names.index(column)), width)
                if end is not None:
                    offsets[inside] = offsets_before(end, width)
            self._placed[column] = offsets
        return self._placed[column]

    def _decode(self, index: int, column: str, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any] | None:
        """Return an array out of its decoded row group; a view of what is kept."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._lock:
            if (number, column) not in self._decoded:
                shard, group, _ = self._groups[number]
                with readable(self.paths[shard]):
                    whole = self._parquet(shard).read_row_group(group, columns=[column], use_threads=False)[column]
                self._decoded[number, column] = whole.combine_chunks()
                while len(self._decoded) > 1 and sum(kept.nbytes for kept in self._decoded.values()) > KEEP_BYTES:
                    self._decoded.popitem(last=False)
            self._decoded.move_to_end((number, column))
            value = self._decoded[number, column][index - int(self._starts[number])]
        if not value.is_valid:
            return None
        buffer = value.as_buffer() if hasattr(value, "as_buffer") else value.values.to_numpy(zero_copy_only=True)
        return np.frombuffer(buffer, dtype=dtype).reshape(shape)

    def _shard(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return int(self._shard_of[index])

    def _parquet(self, shard: int) -> Any:
        import pyarrow.parquet as pq

        place = (os.getpid(), shard)
        with self._lock:
            if place not in self._parquets:
                self._files.check(shard)
                with readable(self.paths[shard]):
                    parquet = pq.ParquetFile(self.paths[shard], memory_map=True)
                self._files.check(shard)  # not replaced in between
                self._parquets[place] = parquet
                if len(self._parquets) > KEEP_FOOTERS:
                    self._parquets.popitem(last=False)
            return self._parquets[place]
