"""Cut one person out of a file that holds others too: the bytes a run without the person would have written.

Every function writes atomically, keeps the time of the file (so that no job is run again for it), and returns what was
removed; nothing is written where nothing is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boldmill.atomic import atomic, write_text
from boldmill.provenance.person import Person

Row = dict[str, Any]
Walked = tuple[Path, list[str], list[str]]
Texts = Callable[[dict[bytes, bytes], set[str]], dict[bytes, bytes]]
ROW_GROUP_ROWS = 256
"""Of a shard whose record does not say it (:class:`boldmill.shards.config.ShardsConfig`)."""


def folders_of(results: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[Walked]:
    """Walk a results folder like :func:`os.walk`, also behind links to folders, each folder once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(results, followlinks=True, onerror=onerror):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
        else:
            seen.add(real)
            yield Path(folder), folders, names


@contextmanager
def same_time(path: Path) -> Iterator[None]:
    """Give a file its old time after it was written anew."""
    before = path.stat()
    yield
    if path.is_file():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def dump_like(value: Any, text: str) -> str:
    """Return JSON in the form of a text: that of manifests, of the index, or on one line.

    >>> dump_like({"b": 1, "a": 2}, '{"z":0}')
    '{"a":2,"b":1}'
    """
    for style in ({"indent": 2}, {"indent": 1}, {}, {"separators": (",", ":")}):
        for end in ("\n", ""):
            if json.dumps(json.loads(text), sort_keys=True, **style) + end == text:
                return json.dumps(value, sort_keys=True, **style) + end
    return json.dumps(value, sort_keys=True, indent=2) + "\n"


def without(value: Any, person: Person) -> Any:
    """Return a JSON value without entries, elements and rows of a person; texts that name them are redacted."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not (person.is_key(key) or _row_of(item, person))}
        return {key: without(item, person) for key, item in kept.items()}
    if isinstance(value, list):
        return [without(item, person) for item in value if not (person.is_key(item) or _row_of(item, person))]
    return person.redact(value) if isinstance(value, str) else value


def _row_of(item: Any, person: Person) -> bool:
    if not isinstance(item, dict):
        return False
    if isinstance(item.get("scan_id"), str) and person.is_scan(item["scan_id"]):
        return True
    return (item.get("dataset"), item.get("subject")) == (person.dataset, person.subject)


def is_json(path: Path) -> bool:
    """Return whether a file is JSON; a damaged one is cut as a text."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def cut_json(path: Path, person: Person, more: Callable[[Any], Any] | None = None) -> bool:
    """Cut a person out of a JSON file; ``more`` tidies what is left, and may return None: then the file goes."""
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    left = without(found, person)
    if left == found:
        return False
    if more is not None:
        left = more(left)
    if left is None:
        path.unlink()
        return True
    with same_time(path):
        write_text(path, dump_like(left, text))
    return True


def cut_lines(path: Path, person: Person) -> int:
    """Cut lines of a TSV that are about a person, and return how many.

    A line is about them if a cell is a scan or the key of the person, or if its columns ``dataset`` and ``subject`` (or
    a ``path`` within the data set) name them.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    head = lines[0].rstrip("\n").split("\t") if lines else []

    def theirs(line: str) -> bool:
        cells = line.rstrip("\n").split("\t")
        row = dict(zip(head, cells, strict=False))
        if any(person.is_key(cell) for cell in cells):
            return True
        if row.get("dataset") != person.dataset:
            return any(person.named_in(cell) for cell in cells)
        return row.get("subject") == person.subject or person.relative(row.get("path", ""))

    kept = [line for number, line in enumerate(lines) if number == 0 or not theirs(line)]
    if len(kept) < len(lines):
        with same_time(path):
            write_text(path, "".join(kept))
    return len(lines) - len(kept)


def redact_text(path: Path, person: Person) -> bool:
    """Replace a person's name in a text file."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    left = person.redact(text)
    if left == text:
        return False
    with same_time(path), atomic(path) as temporary:
        temporary.write_text(left, encoding="utf-8", errors="surrogateescape")
    return True


def rows_of(path: Path, person: Person) -> int:
    """Return how many rows of a Parquet table are of a person; a table that names nobody has none."""
    return sum(_theirs(path, person))


def cached(path: Path, person: Person) -> list[bool]:
    """Return, row by row, whether a cache of facts of raw files (``index/hashes.parquet``) is about a person's."""
    import pyarrow.parquet as pq

    names = pq.read_table(path, columns=["path"], use_threads=False).column("path").to_pylist()
    return [person.is_raw(name) or person.named_in(name) for name in names]


def _theirs(path: Path, person: Person) -> list[bool]:
    """Return, row by row, whether a table's row is of a person."""
    import pyarrow.parquet as pq

    names = set(pq.read_schema(path).names)
    if "scan_id" in names:
        ids = pq.read_table(path, columns=["scan_id"], use_threads=False).column("scan_id").to_pylist()
        own = [person.is_scan(str(one)) for one in ids]
    else:
        own = [False] * pq.read_metadata(path).num_rows
    if {"dataset", "subject"} <= names:
        both = pq.read_table(path, columns=["dataset", "subject"], use_threads=False).to_pydict()
        who = zip(both["dataset"], both["subject"], strict=True)
        return [a or pair == (person.dataset, person.subject) for a, pair in zip(own, who, strict=True)]
    if "subject" in names:
        keys = pq.read_table(path, columns=["subject"], use_threads=False).column("subject").to_pylist()
        return [a or person.is_key(key) for a, key in zip(own, keys, strict=True)]
    return own


def cut_rows(path: Path, person: Person, texts: Texts) -> list[Row]:
    """Cut a person's rows out of a Parquet table and return them, without their arrays.

    A shard is written by the writer of shards, one row group in memory at a time; any other table as a whole.

    Parameters
    ----------
    texts : callable
        Texts of a shard's schema and the data sets still in it -> texts of what is left.
    """
    own = _theirs(path, person)
    if not any(own):
        return []
    import pyarrow.parquet as pq

    from boldmill.tables import KEYS

    schema = pq.read_schema(path)
    table = (schema.metadata or {}).get(b"table", b"").decode()
    with same_time(path):
        if table in KEYS:
            return _cut_shard(path, own, schema, table, texts)
        found = pq.read_table(path, use_threads=False)
        gone = [row for row, theirs in zip(found.to_pylist(), own, strict=True) if theirs]
        with atomic(path) as temporary:
            pq.write_table(found.filter([not theirs for theirs in own]), temporary, compression="zstd")
    return gone


def _cut_shard(path: Path, own: list[bool], schema: Any, table: str, texts: Texts) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from boldmill.shards.write import shard_writer

    small = [field.name for field in schema if not _is_array(field.type)]
    gone: list[Row] = []
    with pq.ParquetFile(path) as source:
        datasets = source.read(columns=["dataset"]).column(0).to_pylist()
        left = {name for name, theirs in zip(datasets, own, strict=True) if not theirs}
        cut = _as_written(schema).with_metadata(texts(dict(schema.metadata), left))
        first = 0
        with shard_writer(path, cut, _group_rows(path, table)) as writer:
            for group in range(source.num_row_groups):
                read = source.read_row_group(group, use_threads=False)
                mask = own[first : first + read.num_rows]
                first += read.num_rows
                gone += read.select(small).filter(pa.array(mask)).to_pylist()
                for row in _rows(read.filter(pa.array([not theirs for theirs in mask]))):
                    writer.add(row)
    return gone


def _as_written(schema: Any) -> Any:
    """Return the Arrow schema a shard was written with: Parquet names the values of a list otherwise."""
    import pyarrow as pa

    def field(one: Any) -> Any:
        if pa.types.is_fixed_size_list(one.type):
            return one.with_type(pa.list_(one.type.value_type, one.type.list_size))
        return one.with_type(pa.list_(one.type.value_type)) if pa.types.is_list(one.type) else one

    return pa.schema([field(one) for one in schema], metadata=schema.metadata)


def _group_rows(path: Path, table: str) -> int:
    """Return the setting a shard was written with, from its record; groups of pFC views are closed by bytes alone."""
    if table == "pfc":
        return 1 << 20
    from boldmill.provenance.record import prov_path

    try:
        record = json.loads(prov_path(path).read_text(encoding="utf-8"))
        shards = json.loads(record["settings"])["config"].get("shards", {})
        if "row_group_rows" in shards:
            return int(shards["row_group_rows"])
        of = [Path(item["path"]) for item in record["inputs"] if item["path"].endswith(path.suffix)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ROW_GROUP_ROWS
    return _group_rows(of[0], table) if len(of) == 1 else ROW_GROUP_ROWS  # a frozen shard was made from another


def _is_array(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_large_binary(kind) or pa.types.is_fixed_size_list(kind))


def _rows(table: Any) -> Iterator[Row]:
    """Yield rows as the shard stage gives them to the writer: bytes, numpy arrays, plain values."""
    import pyarrow as pa

    plain = table.select([f.name for f in table.schema if not pa.types.is_fixed_size_list(f.type)]).to_pylist()
    names = [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]
    vectors = {name: table.column(name).combine_chunks() for name in names}
    for number, row in enumerate(plain):
        for name, column in vectors.items():
            value = column[number]
            row[name] = value.values.to_numpy(zero_copy_only=False) if value.is_valid else None
        yield {name: row[name] for name in table.schema.names}
