"""One torch data set over a snapshot: a shuffled stream of rows of one table, and the rows of a scan by its name.

Axes: B batch, T time or frames, P parcels, E edges, X valid pixels, K views or clips of a scan.

Order. An epoch is one permutation of all rows, keyed by (table, seed, epoch) and nothing else. Each step takes the next
``batch_size x ranks`` rows of it, the global batch; rank r gets rows r, r + ranks, ... of those. So the rows of a step
are the same set for any number of workers, and for any number of ranks at the same global batch; no row is lost or
doubled, and training resumes after any number of rows exactly where it stopped.

Shuffling is a full permutation, without a buffer: rows are fetched straight from their place, so random order reads as
fast as sorted order once a row is as large as a flat clip (2.5 MB), and needs no memory.

Tail. What does not fill the last global batch: ``"keep"`` gives it as it is (ranks may differ by one batch: for one
process), ``"drop"`` leaves it out (training: all ranks make equally many full steps; another row next epoch), ``"pad"``
fills it with rows of the start, marked ``False`` in the entry ``valid`` (evaluation on several ranks: every row counts
once, no rank waits).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from boldmill.errors import BoldmillError, ConfigError, nearest
from boldmill.rng import generator
from boldmill.shards.buffers import batch_buffer
from boldmill.shards.select import Words, select
from boldmill.tables import KEYS
from boldmill.tables import columns as columns_of

if TYPE_CHECKING:
    from boldmill.shards.reader import Snapshot

Batch = dict[str, Any]
"""Column -> tensor of the stacked rows, or a list where rows differ in shape, may be missing or are no numbers."""

Ints = npt.NDArray[np.int64]
STATE = 1


class ShardDataset(IterableDataset[Batch]):
    """Rows of one table of a snapshot: a stream of batches, and ``data[scan_id]``.

    A batch is a dict: small columns as tensors (numbers) or lists, arrays as tensors in their stored precision with a
    first axis B; arrays whose shape differs between rows (``timeseries``) or that may be missing are lists. Iterating
    goes through the rest of the current epoch and then stands at the start of the next one. Use
    :func:`boldmill.shards.loader.loader` to read ahead. ``DataLoader(data, batch_size=None, num_workers=...)`` gives
    the same batches, but its processes cannot count for this object: :meth:`seek` the next epoch (with
    ``persistent_workers`` off), or every epoch has the order of the first.

    Parameters
    ----------
    snapshot : Snapshot
        The data.
    table : {"flat_clips", "timeseries", "fc", "pfc"}
        The table.
    columns : sequence of str, optional
        What to read; the key of the table and ``values`` by default. Nothing else is read from disk.
    split, dataset, site, kind : str or sequence of str, optional
        Keep only scans with these values.
    scan_ids : sequence of str, optional
        Keep only these scans.
    where : callable, optional
        Takes the scans table and returns one bool per row.
    atlas : str, optional
        Atlas of a table of parcels; the snapshot's first by default.
    seed : int
        Seed of the order.
    batch_size : int, optional
        Rows of a batch on each rank; ``None``: single rows, without the axis B.
    rank, ranks : int
        This process and the number of processes that share the rows.
    shuffle : bool
        ``False``: sorted by scan and clip or view.
    tail : {"keep", "drop", "pad"}
        What becomes of the rows that do not fill the last global batch.
    **limits : float
        ``max_mean_fd=0.3``, ``min_volumes=100``, ... (:func:`boldmill.shards.select.select`).

    Attributes
    ----------
    scan_ids : list of str
        The scans read, sorted.
    left_out : dict
        Scans refused by a limit or ``where`` -> reason.
    epoch, position : int
        Where the stream stands: rows given in this epoch, over all ranks.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        split: Words = None,
        dataset: Words = None,
        site: Words = None,
        kind: Words = None,
        scan_ids: Sequence[str] | None = None,
        where: Callable[[Any], Any] | None = None,
        atlas: str | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        shuffle: bool = True,
        tail: Literal["keep", "drop", "pad"] = "keep",
        **limits: float,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ConfigError("cannot share the rows", "rank", f"rank {rank} of {ranks}", "count ranks from 0")
        if tail not in ("keep", "drop", "pad"):
            raise ConfigError("unknown tail", tail, "it is keep, drop or pad", "use one of them")
        if batch_size is not None and batch_size < 1:
            raise ConfigError("cannot make batches", "batch_size", f"it is {batch_size}", "use 1 or more")
        known = {column.name: column for column in columns_of(table)}
        self.table, self.columns = table, list(columns or [*KEYS[table], *(["values"] if "values" in known else [])])
        for name in self.columns:
            if name not in known:
                raise ConfigError("unknown column", name, f"{table} has none{nearest(name, known)}", "use a known one")
        self._arrays = {name: known[name] for name in self.columns if known[name].type in ("array", "vector")}
        chosen = select(snapshot, table, split=split, dataset=dataset, site=site, kind=kind, scan_ids=scan_ids,
                        where=where, atlas=atlas, limits=limits)  # fmt: skip
        self.scan_ids, self.left_out = chosen.scan_ids, chosen.left_out
        self._chosen = frozenset(self.scan_ids)
        self.seed, self.batch_size, self.rank, self.ranks = seed, batch_size, rank, ranks
        self.shuffle, self.tail = shuffle, tail
        self._rows = snapshot.rows(table, atlas)
        self._all = np.array([row for s in self.scan_ids for row in self._rows.all_of(s)], dtype=np.int64)
        names = "\n".join([atlas or "", *self.scan_ids])
        self._identity = {
            "snapshot": snapshot.id,
            "table": table,
            "scans": hashlib.sha256(names.encode()).hexdigest()[:16],
            "rows": len(self._all),
            "seed": seed,
            "shuffle": shuffle,
        }
        self.epoch = self.position = 0

    @property
    def n_rows(self) -> int:
        """Rows of an epoch, over all ranks."""
        return len(self._all)

    @property
    def global_batch(self) -> int:
        """Rows of a step, over all ranks."""
        return (self.batch_size or 1) * self.ranks

    def __len__(self) -> int:
        """Number of batches this rank still has to give in the epoch."""
        return len(self.steps(self.epoch, self.position))

    def seek(self, epoch: int, position: int = 0) -> None:
        """Go to an epoch, after ``position`` rows of it (over all ranks)."""
        self.epoch, self.position = epoch, position

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as plain values: write it into a checkpoint."""
        return {"schema": STATE, **self._identity, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken; the number of ranks and workers may differ.

        Raises
        ------
        ConfigError
            The state is of another snapshot, table, selection, seed or order: the stream would not be the same.
        """
        for key, own in {"schema": STATE, **self._identity}.items():
            if state.get(key) != own:
                why = f"its {key} is {state.get(key)}, here it is {own}"
                raise ConfigError("cannot resume the data", "state_dict", why, "resume with the same data and settings")
        self.seek(int(state["epoch"]), int(state["position"]))

    def order(self, epoch: int) -> Ints:
        """Return the rows of an epoch in their order over all ranks."""
        if not self.shuffle:
            return self._all
        return self._all[generator(self.table, self.seed, epoch).permutation(len(self._all))]

    def steps(self, epoch: int, position: int = 0) -> list[tuple[Ints, npt.NDArray[np.bool_]]]:
        """Return this rank's rows of every step left in an epoch, and which of them are no padding."""
        order, size = self.order(epoch)[position:], self.global_batch
        number = len(order)
        if self.tail == "drop":
            order = order[: number // size * size]
        elif self.tail == "pad" and number:
            order = np.resize(np.concatenate([order, self.order(epoch)]), -(-number // size) * size)
        valid = np.arange(len(order)) < number
        places = (slice(first + self.rank, first + size, self.ranks) for first in range(0, len(order), size))
        return [(order[place], valid[place]) for place in places if len(order[place])]

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is not None:  # the main process counts what it gets
            yield from map(self.batch, self.steps(self.epoch, self.position)[worker.id :: worker.num_workers])
            return
        for step in self.steps(self.epoch, self.position):
            batch = self.batch(step)
            self.advance()
            yield batch
        self.seek(self.epoch + 1)

    def advance(self) -> None:
        """Count one step as done."""
        self.position = min(self.position + self.global_batch, self.n_rows)

    def batch(self, step: tuple[Ints, npt.NDArray[np.bool_]], pin: bool = False) -> Batch:
        """Read the rows of one step, arrays straight into the memory of the batch (pinned, where asked)."""
        rows, valid = step
        if self.batch_size is None:
            found = self._read(rows, pin)
            single = {name: column[0] for name, column in found.items()}
            return single | ({"valid": torch.tensor(bool(valid[0]))} if self.tail == "pad" else {})
        return self._read(rows, pin) | ({"valid": torch.from_numpy(valid.copy())} if self.tail == "pad" else {})

    def __getitem__(self, scan_id: str) -> Batch:
        """Return the rows of a scan: stacked (K, ...) clips or views; of a table with one row per scan, that row."""
        if scan_id not in self._chosen:
            why = self.left_out.get(scan_id, f"the data set has no such scan{nearest(scan_id, self.scan_ids)}")
            raise BoldmillError("unknown scan", scan_id, why, "use one of `scan_ids`")
        found = self._read(np.array(self._rows.all_of(scan_id)), pin=False)
        return found if len(KEYS[self.table]) > 1 else {name: column[0] for name, column in found.items()}

    def __contains__(self, scan_id: object) -> bool:
        return scan_id in self._chosen

    def _read(self, rows: Ints, pin: bool) -> Batch:
        """Return the columns of some rows."""
        found: Batch = {}
        for name in self.columns:
            column = self._arrays.get(name)
            if column is None:
                values = self._rows.column(name)[rows]
                found[name] = values.tolist() if values.dtype == object else torch.from_numpy(values)
            elif column.nullable or self.table == "timeseries":
                arrays = (self._rows.find(int(row), name) for row in rows)
                found[name] = [None if array is None else _owned(array) for array in arrays]
            else:
                shape, dtype = self._rows.kind(int(rows[0]), name)
                out = batch_buffer((len(rows), *shape), dtype, pin)
                self._rows.read(rows, name, out.numpy())
                found[name] = out
        return found


def _owned(values: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values if values.flags.writeable else values.copy())
