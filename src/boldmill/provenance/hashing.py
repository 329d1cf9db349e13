"""Hash many files at once, and go on where a killed run stopped: a journal beside the ledger.

A line of the journal holds the hash of a file with its size, inode and times. It stands in for reading the file again
only while all of them are the same; the time of the last change of state (ctime) cannot be set back by a program.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from boldmill.atomic import hash_file
from boldmill.provenance.record import MEMBER

JOURNAL = "verify.jsonl"
"""Beside the ledger: what a verification that was killed had read."""
AHEAD = 64
"""Files handed to the threads ahead of the one waited for."""
MISSING = "missing"
FLUSH_EVERY = 5.0
"""Seconds of hashing that a kill can cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies at a path now; ``sha256`` is None where it is gone or cannot be read."""

    path: str
    sha256: str | None
    size: int = 0
    mtime_ns: int = 0
    why: str = MISSING

    @property
    def gone(self) -> bool:
        """Whether nothing lies there."""
        return self.sha256 is None and self.why == MISSING


class Journal:
    """Hashes of a verification that did not end.

    Parameters
    ----------
    path : Path
        The journal; it is removed by :meth:`finish`.
    fresh : bool
        Forget what an earlier verification left.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self.begun = ""
        self.recalled = 0
        self._known: dict[str, tuple[str, list[int]]] = {}
        self._kept = True
        if fresh:
            self.finish()
        text = ""
        with suppress(OSError):  # none, or somebody else's
            text = "" if fresh else path.read_text(errors="replace")
        for line in text.splitlines():
            try:  # the last line of a killed run may be cut
                value = json.loads(line)
                if "begun" in value:
                    self.begun = self.begun or value["begun"]
                else:
                    self._known[value["path"]] = (value["sha256"], value["state"])
            except (ValueError, KeyError, TypeError):
                continue
        self._lines: list[str] = []
        self._flushed = time.monotonic()
        if not self.begun:
            self._lines.append(json.dumps({"begun": datetime.now(UTC).isoformat(timespec="seconds")}))

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, path: str, state: list[int]) -> str | None:
        """Return the hash of a file that is still as it was."""
        sha256, known = self._known.get(path, ("", []))
        if known != state:
            return None
        self.recalled += 1
        return sha256

    def add(self, path: str, sha256: str, state: list[int]) -> None:
        """Keep one hash; lines are written in bunches."""
        self._lines.append(json.dumps({"path": path, "sha256": sha256, "state": state}))
        if time.monotonic() - self._flushed > FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what was kept. Where nothing can be written, as for a guest, the verification goes on without."""
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write("".join(line + "\n" for line in self._lines))
        except OSError as error:
            if self._kept:
                print(f"{self.path}: {error.strerror}; once killed, it starts from the beginning", file=sys.stderr)
            self._kept = False
        self._lines, self._flushed = [], time.monotonic()

    def finish(self) -> None:
        """Remove the journal: the next verification reads everything again."""
        with suppress(OSError):  # absent, or not ours to remove
            self.path.unlink()


def look(path: str) -> Found:
    """Return what lies at a recorded path: a file, or a member of an archive."""
    return _look(path, None)[0]


def look_at_all(paths: Iterable[str], journal: Journal, *, threads: int) -> Iterator[Found]:
    """Yield what lies at every path, in their order; files are read by several threads at once."""
    waiting: deque[Future[tuple[Found, list[int]]]] = deque()
    try:
        with ThreadPoolExecutor(threads) as pool:
            for path in chain(paths, [None] * AHEAD):  # a bounded queue: a kill must not wait for a million files
                if path is not None:
                    waiting.append(pool.submit(_look, path, journal))
                if waiting and (path is None or len(waiting) > AHEAD):
                    found, state = waiting.popleft().result()
                    if state and found.sha256 is not None:
                        journal.add(found.path, found.sha256, state)
                    yield found
    finally:
        journal.flush()


def _look(path: str, journal: Journal | None) -> tuple[Found, list[int]]:
    """Return what lies at a path, and its state where it was read and can be known again."""
    name, _, member = path.partition(MEMBER)
    try:
        if member and not Path(path).exists():
            return _look_in(path, Path(name), member), []
        before = Path(path).stat()
        state = [before.st_size, before.st_ino, before.st_mtime_ns, before.st_ctime_ns]
        sha256 = journal.recall(path, state) if journal else None
        if sha256 is not None:
            state = []
        found = Found(path=path, sha256=sha256 or hash_file(path), size=before.st_size,
                      mtime_ns=before.st_mtime_ns)  # fmt: skip
    except FileNotFoundError:
        return Found(path=path, sha256=None), []
    except (OSError, ValueError) as error:  # ValueError: no path at all
        return Found(path=path, sha256=None, why=f"cannot be read: {getattr(error, 'strerror', None) or error}"), []
    return found, state


def _look_in(path: str, archive: Path, member: str) -> Found:
    from boldmill.index.table_files import read_series

    try:
        return Found(path=path, sha256=read_series(archive, member)[2])
    except FileNotFoundError:
        return Found(path=path, sha256=None)
    except Exception as error:  # damaged bytes can break any reader
        return Found(path=path, sha256=None, why=f"cannot be read: {' '.join(str(error).split())[:200]}")
