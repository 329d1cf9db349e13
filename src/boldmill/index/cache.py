"""Facts of files already read, keyed by path, size and modification time: a second ingest reads no image."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

from boldmill.atomic import atomic
from boldmill.index.content import Facts, annex_key, examine

SCHEMA = 1
SAVE_EVERY = 60.0  # seconds; an interrupted ingest of terabytes goes on where it stopped
_COLUMNS = tuple(field.name for field in fields(Facts))


class FactsCache:
    """Facts by absolute path, kept in ``index/hashes.parquet``.

    Parameters
    ----------
    path : Path
        The cache file; a missing or foreign one is an empty cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = dict(_read(path))
        self._saved = time.monotonic()
        self._dirty = False
        self.n_read = 0

    def gather(self, wanted: Iterable[tuple[str, bool]], n_threads: int = 2) -> dict[str, Facts]:
        """Return the facts of every file, reading only what is new or touched.

        Parameters
        ----------
        wanted : iterable of (str, bool)
            Path, and whether every byte must have been verified.
        n_threads : int
            Files read at once; hashing and unpacking run outside the interpreter's lock.
        """
        from tqdm import tqdm

        facts: dict[str, Facts] = {}
        todo: list[tuple[str, bool]] = []
        for path, verify in sorted(set(wanted)):
            known = self._known.get(path)
            if known is not None and (known.verified or not verify) and _unchanged(path, known):
                facts[path] = known
            else:
                todo.append((path, verify))
        self.n_read = len(todo)
        with ThreadPoolExecutor(n_threads) as pool:
            results = pool.map(lambda job: examine(Path(job[0]), job[1]), todo)
            for (path, _), found in tqdm(
                zip(todo, results, strict=True), total=len(todo), desc="reading files", unit="file", disable=not todo
            ):
                facts[path] = found
                if found.size:  # an absent or unreadable file has no size, and is looked at again
                    self._known[path], self._dirty = found, True
                if time.monotonic() - self._saved > SAVE_EVERY:
                    self.save()
        self.save()
        return facts

    def save(self) -> None:
        """Write the cache, if it changed."""
        self._saved = time.monotonic()
        if not self._dirty:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = sorted(self._known.items())
        columns: dict[str, list[object]] = {"path": [path for path, _ in rows]}
        for name in _COLUMNS:
            values = [getattr(found, name) for _, found in rows]
            columns[name] = [json.dumps(v) for v in values] if name == "shape" else values
        table = pa.table(columns).replace_schema_metadata({b"boldmill": str(SCHEMA).encode()})
        with atomic(self.path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        self._dirty = False


def _unchanged(path: str, known: Facts) -> bool:
    try:
        stat = Path(path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (known.size, known.mtime_ns) and annex_key(Path(path)) == known.key


def _read(path: Path) -> Iterator[tuple[str, Facts]]:
    if not path.is_file():
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError):
        return  # a damaged cache costs time, nothing else
    if (table.schema.metadata or {}).get(b"boldmill") != str(SCHEMA).encode():
        return
    columns = {name: table.column(name).to_pylist() for name in ("path", *_COLUMNS)}
    for i, name in enumerate(columns["path"]):
        row = {column: columns[column][i] for column in _COLUMNS}
        row["shape"] = tuple(json.loads(row["shape"]))
        yield name, Facts(**row)
