"""Facts of tables already read, keyed by path, size and modification time: a second ingest reads no series."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from boldmill.atomic import write_text
from boldmill.index.table_files import SeriesFacts, TableFacts, examine_table

SCHEMA = 1


class TableCache:
    """Facts by absolute path, kept in ``index/hashes_tables.json``.

    Parameters
    ----------
    path : Path
        The cache file; a missing or foreign one is an empty cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = _read(path)
        self._used: dict[str, TableFacts] = {}
        self.n_read = 0
        self.n_files = 0

    def gather(self, paths: Iterable[str], n_threads: int = 2) -> dict[str, TableFacts]:
        """Return the facts of every file, reading only what is new or touched."""
        from tqdm import tqdm

        wanted = sorted(set(paths))
        facts = {path: known for path in wanted if (known := self._known.get(path)) and _unchanged(path, known)}
        todo = [path for path in wanted if path not in facts]
        with ThreadPoolExecutor(n_threads) as pool:
            results = pool.map(lambda path: examine_table(Path(path)), todo)
            bar = tqdm(results, total=len(todo), desc="reading tables", unit="file", disable=not todo)
            facts |= dict(zip(todo, bar, strict=True))
        self.n_read += len(todo)
        self.n_files += len(wanted)
        self._used |= facts
        return facts

    def save(self) -> None:
        """Write the facts of the files asked for, if they changed; one that was absent is looked at again."""
        kept = {path: found for path, found in self._used.items() if found.size}
        if kept == self._known or not (kept or self.path.exists()):
            return
        files = {path: asdict(found) for path, found in sorted(kept.items())}
        write_text(self.path, json.dumps({"schema": SCHEMA, "files": files}, sort_keys=True) + "\n")


def _unchanged(path: str, known: TableFacts) -> bool:
    try:
        stat = Path(path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (known.size, known.mtime_ns)


def _read(path: Path) -> dict[str, TableFacts]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["schema"] != SCHEMA:
            return {}
        return {name: _facts(entry) for name, entry in value["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # an absent or damaged cache costs time, nothing else


def _facts(entry: dict[str, Any]) -> TableFacts:
    lists: list[dict[str, Any]] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in one.items()}
        for one in entry["series"]
    ]
    series = tuple(SeriesFacts(**one) for one in lists)
    return TableFacts(**{**entry, "series": series, "names": tuple(entry["names"])})
