"""Plain pages: where each value of a binary column lies in its Parquet file, so that one read() fetches it.

Shards keep large arrays uncompressed in one PLAIN data page per row group (:mod:`boldmill.shards.write`). Such a page
is a header and then, for every row, 4 bytes of length (little endian) and the value. All lengths are known from the
shapes, so positions are counted back from the end of the page. What a column chunk holds beside the values tells one
page from several, in which the headers of later pages would shift the rows before them; a value is read together with
its stored length. Where either is not as expected, the caller decodes the file in the usual way.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from boldmill.errors import BoldmillError

PREFIX = 4
"""Bytes of the stored length before each value."""

HEADER = 17
"""Bytes of the shortest page header (Thrift, compact: nine fields of two bytes or one); ours have up to 31."""

MAX_OPEN = 256
"""Files kept open by one process."""

MAX_BUFFERS = 1024
"""Buffers the system takes in one call (IOV_MAX)."""


def plain_end(chunk: Any, lengths: npt.NDArray[np.int64]) -> int | None:
    """Return where the page of a column chunk ends in its file; ``None`` where its bytes are not one plain page.

    ``chunk`` is the metadata of a column chunk as pyarrow gives it, ``lengths`` are the bytes of its values.
    """
    plain = chunk.compression == "UNCOMPRESSED" and set(chunk.encodings) <= {"PLAIN", "RLE"}
    headers = chunk.total_compressed_size - int((lengths + PREFIX).sum())
    if not plain or chunk.has_dictionary_page or not HEADER <= headers < 2 * HEADER:
        return None
    return int(chunk.data_page_offset + chunk.total_compressed_size)


def offsets_before(end: int, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where each value of a plain page begins, its stored length excluded.

    >>> offsets_before(100, np.array([10, 20]))
    array([66, 80])
    """
    steps = lengths + PREFIX
    return end - np.cumsum(steps[::-1])[::-1] + PREFIX


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into an error that names the file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        why = f"it is damaged, or no Parquet file ({' '.join(str(error).split())[:120]})"
        raise BoldmillError("cannot read the shard", path, why, "name another file, or build it again") from error


class OpenFiles:
    """Some files, opened when first read, for any number of threads.

    A forked process shares them safely, because every read names its position; one that is sent a copy opens its own.
    A file that was written again since it was first looked at is refused: positions in it would be those of other rows.

    Parameters
    ----------
    paths : sequence of Path
        The files, named by their position.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._stamps: dict[int, tuple[int, int]] = {}
        self._open: OrderedDict[int, FileIO] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_stamps": dict(self._stamps)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open, self._lock = OrderedDict(), Lock()

    def check(self, number: int, file: FileIO | None = None) -> None:
        """Remember size and date of a file, and refuse it where they are no longer those first seen."""
        path = self.paths[number]
        facts = path.stat() if file is None else os.fstat(file.fileno())
        size, date = self._stamps.setdefault(number, (facts.st_size, facts.st_mtime_ns))
        if (size, date) != (facts.st_size, facts.st_mtime_ns):
            what = "shard was written again or cut short" if facts.st_size < size else "shard was written again"
            why = "it is no longer the file that was opened"
            raise BoldmillError(what, path, why, "take a new snapshot, and start the program again")

    def _file(self, number: int) -> FileIO:
        with self._lock:
            if number not in self._open:
                file = FileIO(self.paths[number])
                self.check(number, file)
                self._open[number] = file
                if len(self._open) > MAX_OPEN:  # closed when the last thread that reads it lets go
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]

    def fill(self, number: int, offset: int, buffers: Sequence[Any]) -> None:
        """Fill writable buffers, one after the other, from a file at ``offset``.

        Raises
        ------
        BoldmillError
            The file ends before.
        """
        file = self._file(number)
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        views = [view for view in views if len(view)]
        first = 0
        while first < len(views):
            got = os.preadv(file.fileno(), views[first : first + MAX_BUFFERS], offset)
            if got == 0:
                why = f"it ends before byte {offset}"
                raise BoldmillError("shard is cut short", self.paths[number], why, "rebuild the shard")
            offset += got
            while first < len(views) and got >= len(views[first]):
                got -= len(views[first])
                first += 1
            if got:
                views[first] = views[first][got:]
