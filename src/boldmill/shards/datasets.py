"""torch data sets over a snapshot: series by scan (map style), and a shuffled stream of flat clips (iterable).

Axes: T time or frames, P parcels, X valid pixels.

The order of the clips is one permutation of all of them, keyed by (seed, epoch) and nothing else. Item ``p`` of that
order goes to rank ``p mod ranks``; a rank deals its items out to its workers batch by batch, as the ``DataLoader``
collects them. So the global batch of a step is the same set of clips for any number of workers, and of ranks at the
same global batch size; no clip is lost or doubled; training resumes at item ``start`` exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from boldmill.rng import generator
from boldmill.shards.reader import Snapshot


class SeriesDataset(Dataset[tuple[str, torch.Tensor]]):
    """Parcel series by scan: item ``i`` is (scan id, float32 tensor (T, P)); T differs between scans."""

    def __init__(self, snapshot: Snapshot, scan_ids: Sequence[str]) -> None:
        self.scan_ids = list(scan_ids)
        self._rows = snapshot.rows("timeseries")
        self._index = [self._rows.at(scan_id) for scan_id in self.scan_ids]

    def __len__(self) -> int:
        return len(self.scan_ids)

    def __getitem__(self, item: int) -> tuple[str, torch.Tensor]:
        return self.scan_ids[item], _tensor(self._rows.array(self._index[item], "values"))


class FlatClipDataset(IterableDataset[dict[str, Any]]):
    """A stream of flat clips: ``{"scan_id", "clip", "values"}`` with values float16 (T, X).

    Parameters
    ----------
    snapshot : Snapshot
        The data.
    scan_ids : sequence of str
        Scans whose clips are read, e.g. ``snapshot.scans(split="train", having="flat_clips")["scan_id"]``.
    seed : int
        Base seed of the order.
    batch_size : int
        Batch size of the ``DataLoader`` this data set is given to; workers take turns by it.
    rank, ranks : int
        This process and the number of processes that share the clips.
    shuffle : bool
        ``False``: sorted by scan and clip.
    drop_last : bool
        Leave out, per epoch, what does not fill a batch on every rank, so that all ranks make equally many steps.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        scan_ids: Sequence[str],
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} of {ranks}")
        self.seed, self.batch_size, self.rank, self.ranks = seed, batch_size, rank, ranks
        self.shuffle, self.drop_last = shuffle, drop_last
        self._rows = snapshot.rows("flat_clips")
        self._all = np.array(
            [row for scan_id in sorted(scan_ids) for row in self._rows.all_of(scan_id)], dtype=np.int64
        )
        self.set_position(0)

    def __len__(self) -> int:
        """Number of clips this rank still has to give in the epoch."""
        return len(self.order()[self.start :][self.rank :: self.ranks])

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Go to an epoch, after ``start`` clips of it (over all ranks: steps x batch size x ranks).

        Call it before the ``DataLoader`` is iterated: workers take the position with them when they start.
        """
        self.epoch, self.start = epoch, start

    def order(self) -> npt.NDArray[np.int64]:
        """Return the rows of the epoch in their order over all ranks."""
        order = self._all
        if self.shuffle:
            order = order[generator("flat_clips", self.seed, self.epoch).permutation(len(order))]
        if self.drop_last:
            order = order[: len(order) // (self.batch_size * self.ranks) * (self.batch_size * self.ranks)]
        return order

    def __iter__(self) -> Iterator[dict[str, Any]]:
        mine = self.order()[self.start :][self.rank :: self.ranks]
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for first in range(number * self.batch_size, len(mine), workers * self.batch_size):
            for index in mine[first : first + self.batch_size]:
                row = self._rows.row(int(index), ["scan_id", "clip"])
                yield {**row, "values": _tensor(self._rows.array(int(index), "values"))}


def _tensor(values: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.copy())  # a copy: the Arrow buffer is read-only and goes with its row group
