"""``FILE#column=value,...``: rows of a table, that they exist, and what they hold. Columns: R rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.atomic import canonical_json, read_json
from boldmill.errors import BoldmillError, nearest

ALIASES = {"scan": "scan_id"}
SHOWN = 20
"""Rows shown; the digest is over all that were chosen."""
LONG, FEW = 200, 8
"""Longer texts, and arrays of more values, are shown by their length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Chosen rows: how many, the first of them as they are shown, and the sha256 over all of them."""

    where: dict[str, str]
    count: int
    rows: list[dict[str, Any]]
    sha256: str


def parse(selection: str, target: str) -> dict[str, str]:
    """Return column -> value of the part behind ``#``; a value may hold commas where no ``column=`` follows.

    >>> parse("task=group,metric=auc", "metrics.tsv")
    {'task': 'group', 'metric': 'auc'}
    """
    found: dict[str, str] = {}
    last = ""
    for part in selection.split(","):
        name, sign, value = part.partition("=")
        if sign:
            last = ALIASES.get(name.strip(), name.strip())
            found[last] = value
        elif last:
            found[last] += f",{part}"
        else:
            why = f"'#{selection}' chooses no row"
            raise BoldmillError("cannot trace", target, why, "write #column=value, e.g. #scan=...")
    return found


def choose(path: Path, where: dict[str, str], target: str) -> Rows:
    """Return the rows of a ``.tsv`` or ``.parquet`` file whose columns have the given values, or a scan of a manifest.

    Raises
    ------
    BoldmillError
        Another kind of file, a column it does not have, or no such row.
    """
    readers = {".tsv": _of_tsv, ".parquet": _of_parquet, ".json": _of_manifest}
    if path.suffix not in readers:
        raise BoldmillError("cannot trace", target, f"a {path.suffix or 'file without a suffix'} has no rows",
                            "name a .tsv, .parquet or manifest, or leave out what follows #")  # fmt: skip
    if not path.is_file():
        raise BoldmillError("cannot trace", target, "the file is gone", "make it again")
    return readers[path.suffix](path, where, target)


def _check(where: dict[str, str], columns: list[str], target: str) -> None:
    for name in where:
        if name not in columns:
            why = f"there is no column '{name}'{nearest(name, columns)}; the columns are {', '.join(columns)}"
            raise BoldmillError("cannot trace", target, why, "correct the name")


def _none(where: dict[str, str], values: dict[str, set[str]], target: str) -> BoldmillError:
    """Return the error for rows that are not there, with the values that are."""
    told = []
    for name, value in where.items():
        there = sorted(values[name])
        few = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
        told.append(f"{name} '{value}'{nearest(value, there)} (there are: {few})" if value not in there else "")
    why = "; ".join(filter(None, told)) or "each value occurs, but not in one row"
    return BoldmillError("cannot trace", target, f"no such row: {why}", "name a row that is in the file")


def _of_manifest(path: Path, where: dict[str, str], target: str) -> Rows:
    """Return what a bucket's or subject's manifest says of a scan."""
    _check(where, ["scan_id"], target)
    try:
        scans = dict(read_json(path)["scans"])
    except (ValueError, KeyError, TypeError) as error:
        raise BoldmillError("cannot trace", target, "the file lists no scans", "leave out what follows #") from error
    if where["scan_id"] not in scans:
        raise _none(where, {"scan_id": set(scans)}, target)
    digest = hashlib.sha256(canonical_json(scans[where["scan_id"]]).encode()).hexdigest()
    return Rows(where=where, count=1, rows=[dict(where)], sha256=digest)


def _of_tsv(path: Path, where: dict[str, str], target: str) -> Rows:
    import csv

    with open(path, encoding="utf-8", errors="replace", newline="") as handle:
        reader = csv.DictReader(handle, delimiter="\t", restkey="(more)", restval="")
        columns = list(reader.fieldnames or [])
        _check(where, columns, target)
        table = [{name: str(value) for name, value in row.items()} for row in reader]
    rows = [row for row in table if all(row[name] == value for name, value in where.items())]
    if not rows:
        raise _none(where, {name: {row[name] for row in table} for name in where}, target)
    digest = hashlib.sha256("".join(canonical_json(row) + "\n" for row in rows).encode()).hexdigest()
    return Rows(where=where, count=len(rows), rows=[dict(row) for row in rows[:SHOWN]], sha256=digest)


def _of_parquet(path: Path, where: dict[str, str], target: str) -> Rows:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BoldmillError("cannot trace", target, f"the table cannot be read ({error})", "make it again") from error
    _check(where, file.schema_arrow.names, target)
    mask: Any = None
    keys = file.read(columns=list(where))
    try:
        texts = {name: pc.cast(keys.column(name), pa.string()) for name in where}
    except pa.ArrowException as error:
        why = f"of {', '.join(where)} one is no column of plain values"
        raise BoldmillError("cannot trace", target, why, "choose by another column, e.g. #scan=...") from error
    for name, value in where.items():
        same = pc.equal(texts[name], value)
        mask = same if mask is None else pc.and_kleene(mask, same)
    places = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    if not places:
        there = {name: set(filter(None, pc.unique(text).to_pylist())) for name, text in texts.items()}
        raise _none(where, there, target)
    table, start = [], 0
    for group in range(file.num_row_groups):  # only the row groups that hold a chosen row are read
        n = file.metadata.row_group(group).num_rows
        inside = [place - start for place in places if start <= place < start + n]
        if inside:
            table.append(file.read_row_group(group).take(inside))
        start += n
    chosen = pa.concat_tables(table).combine_chunks()
    return Rows(where=where, count=chosen.num_rows, rows=_shown(chosen.slice(0, SHOWN)), sha256=rows_sha256(chosen))


def rows_sha256(table: Any) -> str:
    """Return the sha256 over the values of a table, independent of how they are laid out in the file."""
    total = hashlib.sha256()
    for name in sorted(table.column_names):
        total.update(name.encode() + b"\0")
        _feed(total, table.column(name).combine_chunks())
    return total.hexdigest()


def _feed(total: Any, array: Any) -> None:
    """Add an array of any type: lists by their lengths and values, numbers by their bytes, all else as JSON."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    total.update(str(kind).encode() + canonical_json(len(array)).encode())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        total.update(canonical_json(pc.list_value_length(array).to_pylist()).encode())
        _feed(total, array.flatten())
    elif (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and not array.null_count:
        total.update(array.to_numpy(zero_copy_only=False).tobytes())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        for value in array.to_pylist():
            total.update(b"-" if value is None else len(value).to_bytes(8, "little") + value)
    else:
        total.update(repr(array.to_pylist()).encode())


def _shown(table: Any) -> list[dict[str, Any]]:
    """Return rows as plain values; long texts and arrays by their length."""
    rows: list[dict[str, Any]] = []
    for place in range(table.num_rows):
        rows.append({name: _plain(table.column(name)[place]) for name in table.column_names})
    return rows


def _plain(value: Any) -> Any:
    """Return one value of a column as JSON can hold it."""
    if value.is_valid and hasattr(value, "values") and len(value) > FEW:
        return f"({len(value)} values)"
    plain = value.as_py()
    if isinstance(plain, bytes):
        return f"({len(plain)} bytes)"
    return f"({len(plain)} characters)" if isinstance(plain, str) and len(plain) > LONG else plain
