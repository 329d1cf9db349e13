"""Read a data set of shards ahead of training: threads or processes, pinned memory, a device.

Reading needs no Python work beyond one system call per row, so threads of this process read as fast as the disk and put
rows where the device copies from; processes are for callers who add Python work to every batch. The order of batches is
that of the data set in both cases, and the position counts what the caller was given, not what was read ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from boldmill.shards.datasets import Batch, ShardDataset


def loader(
    data: ShardDataset,
    *,
    workers: int = 0,
    threads: int = 1,
    prefetch: int = 2,
    pin_memory: bool | None = None,
    device: str | torch.device | None = None,
) -> ShardLoader:
    """Return an iterable of batches that are read ahead.

    Parameters
    ----------
    data : ShardDataset
        What to read, with a batch size.
    workers : int
        Processes (a :class:`torch.utils.data.DataLoader` with persistent workers); 0: threads of this process.
    threads : int
        Threads, where there are no processes.
    prefetch : int
        Batches read ahead by each worker or thread.
    pin_memory : bool, optional
        Put batches into pinned memory; by default where CUDA is there.
    device : str or torch.device, optional
        Copy batches there, the next one while the last is used; without it they stay in memory.
    """
    pin = torch.cuda.is_available() if pin_memory is None else pin_memory
    return ShardLoader(data, workers=workers, threads=threads, prefetch=prefetch, pin=pin, device=device)


class ShardLoader:
    """Batches of the rest of the current epoch, each time it is iterated; made by :func:`loader`.

    Leaving a loop early is allowed: the next one goes on after the last batch given.
    """

    def __init__(self, data: ShardDataset, *, workers: int, threads: int, prefetch: int, pin: bool,
                 device: str | torch.device | None) -> None:  # fmt: skip
        self.data, self.threads, self.prefetch, self.pin = data, threads, prefetch, pin
        self.device = None if device is None else torch.device(device)
        self._stream = _Stream(data)
        self._processes: DataLoader[Batch] | None = None
        if workers:
            self._processes = DataLoader(self._stream, batch_size=None, num_workers=workers, pin_memory=pin,
                                         persistent_workers=True, prefetch_factor=prefetch)  # fmt: skip

    def __len__(self) -> int:
        """Number of batches left in the epoch."""
        return len(self.data)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch given (:meth:`ShardDataset.state_dict`)."""
        return self.data.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken (:meth:`ShardDataset.load_state_dict`)."""
        self.data.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        epoch, position = self.data.epoch, self.data.position
        if self._processes is None:
            batches: Iterator[Batch] = self._ahead(epoch, position)
        else:
            self._stream.begin[:] = torch.tensor([epoch, position])
            batches = iter(self._processes)
        if self.device is not None:
            batches = to_device(batches, self.device)
        for batch in batches:
            self.data.advance()
            yield batch
        self.data.seek(epoch + 1)

    def _ahead(self, epoch: int, position: int) -> Iterator[Batch]:
        """Yield batches in order while threads read the next ones."""
        steps = iter(self.data.steps(epoch, position))
        waiting: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="shards")
        try:
            for step in steps:
                waiting.append(pool.submit(self.data.batch, step, self.pin))
                if len(waiting) > self.threads * self.prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Stream(IterableDataset[Batch]):
    """What worker processes iterate: they look up in shared memory where the epoch begins."""

    def __init__(self, data: ShardDataset) -> None:
        self.data = data
        self.begin = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        epoch, position = self.begin.tolist()
        yield from map(self.data.batch, self.data.steps(epoch, position)[number::workers])


def to_device(batches: Iterator[Batch], device: str | torch.device) -> Iterator[Batch]:
    """Yield batches on a device; the next one is on its way while the last is used (double buffer).

    On CUDA copies run on a stream of their own, and need pinned memory to overlap with computation.
    """
    target = torch.device(device)
    side = torch.cuda.Stream(target) if target.type == "cuda" else None  # type: ignore[no-untyped-call]
    last: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            moved = _moved(batch, target)
        if last is not None:
            yield _arrived(last, side)
        last = moved
    if last is not None:
        yield _arrived(last, side)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _moved(entry, device) for key, entry in value.items()}
    return [_moved(entry, device) for entry in value] if isinstance(value, list) else value


def _arrived(value: Any, side: torch.cuda.Stream | None) -> Any:
    """Make the current stream wait for the copy, and keep the memory until that stream is done with it."""
    if side is not None:
        now = torch.cuda.current_stream(side.device)
        now.wait_stream(side)
        _keep(value, now)
    return value


def _keep(value: Any, stream: torch.cuda.Stream) -> None:
    if isinstance(value, torch.Tensor):
        value.record_stream(stream)
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            _keep(entry, stream)
