"""Records -> tables of outputs and of inputs. Columns: O outputs, I inputs, R records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from boldmill.atomic import atomic, sha256_file
from boldmill.provenance.files import record_files
from boldmill.provenance.record import SUFFIX, prov_path, shown, sound

INPUTS = "inputs.parquet"
"""Name of the table of inputs, beside the ledger."""
SEEN, LOST = ".seen.parquet", ".lost.parquet"
"""Cache beside the ledger: size and times of every record in it, and the rows of outputs that others stand for."""
AT_ONCE = 2048
"""Records read and turned into columns at once."""
READERS = 8

Getter = Callable[[dict[str, Any]], Any]


def _of(key: str) -> Getter:
    return lambda record: record.get(key)


def _environment(key: str) -> Getter:
    return lambda record: record["environment"].get(key)


def _git(key: str) -> Getter:
    return lambda record: record["environment"].get("git", {}).get(key)


FEW = "few"
"""Type of texts that many rows share, and that may be long: each is held once."""

SHARED: dict[str, tuple[str, Getter]] = {
    **{name: (FEW, _of(name)) for name in ("stage", "settings", "settings_digest", "stage_code")},
    **{name: ("string", _of(name)) for name in ("started", "ended")},
    "stage_version": ("int32", _of("stage_version")),
    "seed": ("int64", _of("seed")),
    "peak_rss_mib": ("double", _of("peak_rss_mib")),
    **{
        name: (FEW, _environment(name))
        for name in ("boldmill", "code_sha256", "python", "packages_digest", "host", "user", "slurm_job", "gpu")
    },
    "cards": (FEW, lambda record: json.dumps(record["environment"].get("cards", []), sort_keys=True)),
    "git_commit": (FEW, _git("commit")),
    "git_dirty": ("bool", _git("dirty")),
    "git_diff_sha256": (FEW, _git("diff_sha256")),
    "command": (FEW, lambda record: " ".join(record["command"])),
}
"""Columns that all outputs of a record share: type, and how to read them."""

OUTPUT = {"path": "string", "sha256": "string", "size": "int64", "mtime_ns": "int64", "temporary": "bool"}
RECORD = {"record": "string", "record_sha256": "string"}
INPUT = {"record": "string", "path": "string", "sha256": "string", "size": "int64"}
MARKS = {"record": "string", "size": "int64", "mtime_ns": "int64", "ctime_ns": "int64"}


def schemas() -> tuple[Any, Any]:
    """Return the Arrow schemas of outputs and inputs."""
    import pyarrow as pa

    def make(kinds: dict[str, str]) -> Any:
        return pa.schema([pa.field(name, pa.type_for_alias(kind)) for name, kind in kinds.items()])

    few = pa.dictionary(pa.int32(), pa.string())
    kinds = {name: few if kind == FEW else pa.type_for_alias(kind) for name, (kind, _) in SHARED.items()}
    return pa.schema([*make({**OUTPUT, **RECORD}), *kinds.items()]), make(INPUT)


@dataclass(frozen=True, slots=True)
class Folded:
    """Tables of outputs (O, sorted by path) and inputs (I, sorted by record), and what to remember of the records.

    ``lost`` are the rows of outputs that another record's row stands for, ``faults`` the records that are damaged or
    edited, with why.
    """

    outputs: Any
    inputs: Any
    lost: Any
    seen: Any
    faults: dict[str, str]

    def remember(self, out: Path) -> None:
        """Write the cache of the ledger at ``out``; only after both tables, whose hashes it holds, were written."""
        import pyarrow.parquet as pq

        for name in (LOST, SEEN):
            table = self.lost if name == LOST else self.seen.replace_schema_metadata(_hashes(out))
            with atomic(out.with_name(name)) as temporary:
                pq.write_table(table, temporary, compression="zstd")


def _hashes(out: Path) -> dict[str, str]:
    """Return the hashes of the tables that rows are taken over from."""
    return {name: sha256_file(out.with_name(name)) for name in (out.name, INPUTS, LOST)}


def fold(results: Path, out: Path, *, fresh: bool = True) -> Folded:
    """Read the records below ``results`` and return the tables.

    Where two records name one output (part of a job was run again, or several commands write one common file), the one
    that ended later wins; at the same time, the one that lies beside the output. The record of the ledger ``out``
    itself is left out: a table cannot hold its own hash, and that of the last one is stale.

    Parameters
    ----------
    results, out : Path
        Results folder, and where the ledger lies or will lie.
    fresh : bool
        Read every record; else those whose size and times are as they were are taken from the ledger at ``out``,
        provided that it is the very one that was written.
    """
    import pyarrow as pa

    own = shown(prov_path(out))
    marks = {shown(path): (s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in record_files(results)}
    marks.pop(own, None)
    of_outputs, of_inputs = schemas()
    outputs, inputs = [of_outputs.empty_table()], [of_inputs.empty_table()]
    kept: set[str] = set()
    if not fresh and (old := _cached(out, marks)):
        kept, old_outputs, old_inputs = old
        outputs.append(old_outputs)
        inputs.append(old_inputs)
    faults: dict[str, str] = {}
    for part in _read_all([path for path in sorted(marks) if path not in kept], faults):
        outputs.append(part[0])
        inputs.append(part[1])
    chosen, lost = map(tidy, _latest(pa.concat_tables(outputs).unify_dictionaries()))
    read = pa.concat_tables(inputs).sort_by([("record", "ascending"), ("path", "ascending")])
    names = sorted(marks.keys() - faults.keys())
    columns = [names, *([marks[name][i] for name in names] for i in range(3))]
    seen = pa.table(dict(zip(MARKS, columns, strict=True)), pa.schema(list(MARKS.items())))
    return Folded(chosen, read, lost, seen, faults)


def _latest(table: Any) -> tuple[Any, Any]:
    """Return one row per path, sorted by path, and all others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    beside = pc.equal(table.column("record"), pc.binary_join_element_wise(table.column("path"), SUFFIX, ""))
    keyed = pa.table({**{name: table.column(name) for name in ("path", "ended", "record")}, "beside": beside})
    order = pc.sort_indices(
        keyed,
        sort_keys=[("path", "ascending"), ("ended", "descending"), ("beside", "descending"), ("record", "ascending")],
    )
    table = table.take(order).combine_chunks()
    if not table.num_rows:
        return table, table
    paths = table.column("path").combine_chunks()
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(paths[1:], paths[:-1])])
    return table.filter(first), table.filter(pc.invert(first))


def tidy(table: Any) -> Any:
    """Return the table with dictionaries sorted and without unused texts: the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(place).combine_chunks()
            codes, texts = column.indices, column.dictionary
            used = pc.unique(codes).drop_null()
            ordered = used.take(pc.sort_indices(texts.take(used)))
            tidy = pa.DictionaryArray.from_arrays(pc.index_in(codes, value_set=ordered), texts.take(ordered))
            table = table.set_column(place, field, tidy)
    return table


def _cached(out: Path, marks: dict[str, tuple[int, int, int]]) -> tuple[set[str], Any, Any] | None:
    """Return the records that did not change since the ledger at ``out``, and all rows of outputs and inputs of them.

    None where the ledger is not what was written: rows that somebody edited must not be carried on.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        seen, lost = pq.read_table(out.with_name(SEEN)), pq.read_table(out.with_name(LOST))
        hashes = {key.decode(): value.decode() for key, value in (seen.schema.metadata or {}).items()}
        if hashes != _hashes(out):
            return None
        outputs, inputs = pq.read_table(out), pq.read_table(out.with_name(INPUTS))
    except (OSError, ValueError, pa.ArrowException):
        return None
    if (outputs.schema, inputs.schema) != schemas() or lost.schema != outputs.schema or seen.column_names != [*MARKS]:
        return None
    columns = seen.to_pydict()
    known = dict(zip(columns["record"], zip(*(columns[name] for name in [*MARKS][1:]), strict=True), strict=True))
    kept = {path for path, mark in known.items() if marks.get(path) == mark}
    names = pa.array(sorted(kept), pa.string())

    def of_kept(table: Any) -> Any:
        return table.filter(pc.is_in(table.column("record"), value_set=names))

    return kept, pa.concat_tables([of_kept(outputs), of_kept(lost)]), of_kept(inputs)


def _read_all(paths: list[str], faults: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    """Yield tables of outputs and inputs, of some records at a time; the disk is asked by several threads."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), AT_ONCE):
            some = paths[start : start + AT_ONCE]
            yield _columns(some, list(pool.map(_content, some)), faults)


def _content(path: str) -> bytes | OSError:
    """Return the bytes of a record, or why there are none: it may be gone by now, or somebody else's."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        return error


TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("string", FEW), (str,)),
    **dict.fromkeys(("int32", "int64"), (int,)),
    "double": (int, float),
    "bool": (bool,),
}
LIMITS = {"int32": 1 << 31, "int64": 1 << 63, "double": 1 << 53}
"""Integers a column can hold are smaller than this."""


def _take(item: dict[str, Any], kinds: dict[str, str]) -> list[Any]:
    """Return the values of an item in the order of ``kinds``; absent ones are None.

    Raises
    ------
    TypeError, ValueError
        One has another type or does not fit its column, as in a damaged record.
    """
    values = [item.get(name) for name in kinds]
    for value, kind in zip(values, kinds.values(), strict=True):
        if value is not None and type(value) not in TYPES[kind]:
            raise TypeError(kind)
        if type(value) is int and not -LIMITS[kind] <= value < LIMITS[kind]:
            raise ValueError(kind)
        if type(value) is str and not value.isascii():
            value.encode()  # a name that is no UTF-8 fits no table
    return values


@lru_cache(maxsize=256)
def _check_settings(text: str) -> None:
    if not isinstance(json.loads(text), dict):
        raise TypeError("settings")


def _read(content: bytes) -> tuple[list[Any], list[list[Any]], list[list[Any]], bool]:
    """Return what all outputs of a record share, its outputs, its inputs, and whether it has its own digest."""
    record = json.loads(content)
    shared = _take(
        {name: get(record) for name, (_, get) in SHARED.items()}, {k: kind for k, (kind, _) in SHARED.items()}
    )
    outputs = [_take(item, OUTPUT) for item in record["outputs"]]
    inputs = [_take(item, INPUT) for item in record["inputs"]]
    if any(None in row[:2] for row in outputs) or any(None in row[1:3] for row in inputs):
        raise TypeError("path or sha256")
    _check_settings(record["settings"])
    for time in (record["started"], record["ended"]):
        datetime.fromisoformat(time)
    if record["stage"] is None:
        raise TypeError("stage")
    return shared, outputs, inputs, sound(record)


def _columns(paths: list[str], contents: list[bytes | OSError], faults: dict[str, str]) -> tuple[Any, Any]:
    import pyarrow as pa

    of_outputs, of_inputs = schemas()
    shared: list[list[Any]] = []
    outputs: list[list[Any]] = []
    inputs: list[list[Any]] = []
    owner: list[int] = []
    for path, content in zip(paths, contents, strict=True):
        try:
            if isinstance(content, OSError):
                raise content
            common, wrote, read, whole = _read(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            faults[path] = f"the record cannot be read ({type(error).__name__})"
            continue
        if not whole:
            faults[path] = "the record was edited: it no longer has its own digest"
        owner += [len(shared)] * len(wrote)
        shared.append([path, hashlib.sha256(content).hexdigest(), *common])
        outputs += wrote
        inputs += [[path, *row[1:]] for row in read]
    at = pa.array(owner, pa.int32())
    built = _arrays(outputs, [of_outputs.field(name) for name in OUTPUT])
    for name, column in _arrays(shared, [of_outputs.field(name) for name in (*RECORD, *SHARED)]).items():
        if pa.types.is_dictionary(column.type):
            built[name] = pa.DictionaryArray.from_arrays(column.indices.take(at), column.dictionary)
        else:
            built[name] = column.take(at)
    return pa.table(built, schema=of_outputs), pa.table(_arrays(inputs, list(of_inputs)), schema=of_inputs)


def _arrays(rows: list[list[Any]], fields: list[Any]) -> dict[str, Any]:
    """Return rows as one array per field."""
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else [()] * len(fields)
    return {field.name: pa.array(values, field.type) for field, values in zip(fields, columns, strict=True)}
