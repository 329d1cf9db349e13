"""The Parquet tables: what each column holds, its unit, its shape and where it comes from.

Axes: T time (volumes or frames), P parcels, E = P (P - 1) / 2 edges (upper triangle, row by row), X valid pixels.

Large arrays (time series, pFC views, flat clips) are one binary value per row: C order, little endian, dtype and shape
in the metadata of the field. Small arrays of one length (FC, morphometry) are fixed-size lists. Decode by hand with::

    values = np.frombuffer(row["values"], dtype="<f2")       # dtype: metadata of the field
    clip = values.reshape(row["n_frames"], row["n_pixels"])  # shape: metadata of the field, names of columns

A flat clip holds z-scores: as float16, or as int8 in steps of ``scale`` (1 for float16). The mean and SD of every
pixel, in clip 0 of its scan, bring the unit of the cleaned series back::

    z = np.frombuffer(row["values"], "i1").reshape(row["n_frames"], -1) * np.float32(row["scale"])  # "<f2" for float16
    series = z * np.frombuffer(first["std"], "<f4") + np.frombuffer(first["mean"], "<f4")

``timeseries``, ``fc`` and ``pfc`` have one file per bucket and atlas, whose label is in the column ``atlas``: rows of
one atlas have one length, whatever the other atlases have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from boldmill.errors import BoldmillError, ConfigError, nearest
from boldmill.table_columns import KEYS as KEYS
from boldmill.table_columns import TABLES as TABLES
from boldmill.table_columns import Column as Column

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
"""Raised whenever a column is added, removed or changes its meaning."""

MORPHOMETRY_FEATURES = 9

DTYPES = {"int8": "|i1", "float16": "<f2", "float32": "<f4", "float64": "<f8"}
"""Name in the metadata -> numpy dtype string."""


def columns(name: str) -> tuple[Column, ...]:
    """Return the columns of a table; an unknown name is refused with the nearest valid one."""
    if name not in TABLES:
        raise ConfigError("unknown table", name, f"it is not in the registry{nearest(name, TABLES)}", "use a known one")
    return TABLES[name]


def schema(
    name: str,
    *,
    sizes: Mapping[str, int] | None = None,
    dtypes: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> pa.Schema:
    """Return the Arrow schema of a table.

    Parameters
    ----------
    name : str
        Table.
    sizes : mapping, optional
        Lengths of the axes of ``vector`` columns (``n_parcels``, ``n_edges``, ``n_features``). An axis that is unknown,
        because the bucket has no rows, makes the column a list without a fixed size.
    dtypes, units : mapping, optional
        Element types and units that differ from the registry (``{"values": "float32"}``).
    metadata : mapping, optional
        Further texts of the schema (parcel names, mask, estimator).
    """
    import pyarrow as pa

    simple = {
        "string": pa.string(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "map": _pairs(pa.string()),
        "numbers": _pairs(pa.float64()),
        "array": pa.large_binary(),
    }
    sizes, dtypes, units = sizes or {}, dtypes or {}, units or {}
    fields = []
    for column in columns(name):
        kind = simple.get(column.type)
        if kind is None:
            length = _product([sizes.get(axis, 0) for axis in column.shape.split(",")])
            kind = pa.list_(pa.float32(), length) if length else pa.list_(pa.float32())
        facts = {
            "description": column.description,
            "unit": units.get(column.name, column.unit),
            "shape": column.shape,
            "dtype": dtypes.get(column.name, column.dtype),
            "source": column.source,
        }
        described = {key: value for key, value in facts.items() if value}
        fields.append(pa.field(column.name, kind, nullable=column.nullable, metadata=described))
    texts = {"table": name, "schema_version": str(SCHEMA_VERSION), **{k: str(v) for k, v in sizes.items()}}
    return pa.schema(fields, metadata={**texts, **(metadata or {})})


def _pairs(value: pa.DataType) -> pa.DataType:
    """Return a list of key and value: HuggingFace `datasets` reads no Arrow map."""
    import pyarrow as pa

    return pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", value, nullable=False)]))


def pairs(value: Any) -> dict[str, Any]:
    """Return a ``map`` or ``numbers`` value, as pyarrow and pandas give it, as a dict; a missing one is empty.

    >>> pairs([{"key": "tsnr", "value": 50.0}])
    {'tsnr': 50.0}
    """
    return {entry["key"]: entry["value"] for entry in ([] if value is None else value)}


def dtype_of(arrow: pa.Schema, column: str) -> str:
    """Return the numpy dtype string of an ``array`` or ``vector`` column, e.g. ``"<f2"``."""
    return DTYPES[arrow.field(column).metadata[b"dtype"].decode()]


def validate(table: pa.Table, name: str) -> None:
    """Check a table against the registry: columns, types, version, order, and the byte length of every array.

    Raises
    ------
    BoldmillError
        With the first thing that does not fit.
    """
    wanted = columns(name)
    found = table.schema.metadata or {}
    if found.get(b"schema_version", b"").decode() != str(SCHEMA_VERSION):
        version = found.get(b"schema_version", b"none").decode()
        raise _wrong(name, f"schema version is {version}, this boldmill reads {SCHEMA_VERSION}")
    names = [column.name for column in wanted]
    if table.schema.names != names:
        raise _wrong(name, f"columns are {table.schema.names}, expected {names}")
    sizes = {axis: int(found[axis.encode()]) for c in wanted for axis in c.shape.split(",") if axis.encode() in found}
    for field in schema(name, sizes=sizes):
        if table.schema.field(field.name).type != field.type:
            raise _wrong(name, f"column {field.name} is {table.schema.field(field.name).type}, expected {field.type}")
        if not field.nullable and table.column(field.name).null_count:
            raise _wrong(name, f"column {field.name} has {table.column(field.name).null_count} missing values")
    keys = list(zip(*(table.column(key).to_pylist() for key in KEYS[name]), strict=True))
    if any(a >= b for a, b in pairwise(keys)):
        raise _wrong(name, f"rows are not sorted, or not unique, by {KEYS[name]}")
    for column in wanted:
        if column.type == "array":
            dtype = (table.schema.field(column.name).metadata or {}).get(b"dtype", b"none").decode()
            if dtype not in DTYPES:
                raise _wrong(name, f"column {column.name} has dtype {dtype}, known are {sorted(DTYPES)}")
            _check_lengths(table, name, column, DTYPES[dtype])


def _check_lengths(table: pa.Table, name: str, column: Column, dtype: str) -> None:
    import numpy as np
    import pyarrow.compute as pc

    lengths = pc.binary_length(table.column(column.name)).to_pylist()
    axes = [table.column(axis).to_pylist() for axis in column.shape.split(",")]
    for row, (length, *sizes) in enumerate(zip(lengths, *axes, strict=True)):
        expected = _product(sizes) * np.dtype(dtype).itemsize
        if length not in (None, expected):
            raise _wrong(name, f"row {row}: column {column.name} has {length} bytes, its shape needs {expected}")


def _product(values: Sequence[Any]) -> int:
    product = 1
    for value in values:
        product *= int(value)
    return product


def _wrong(name: str, why: str) -> BoldmillError:
    return BoldmillError("not a valid table", name, why, "rebuild the shards with this version of boldmill")
