"""Apply a sparse operator to blocks of frames: on the job's CPU threads, or by torch where the data or a device ask.

A volume lies in memory with i fastest and time last, so a block (n, b) from a file is Fortran-ordered: a frame is one
piece of memory. Two ways follow from that:

- means over many elements (parcels): per frame the wanted elements are collected in the order of the rows and added up
  in float64, which costs no transposition and has no rounding that counts;
- samples of few elements (ribbon, flat pixels): the block is turned to (n, b) with time fastest, a panel at a time, and
  each weight multiplies a row of the panel, so that the operator is read once per panel and not once per frame.

The order of the additions follows from the operator alone: the bytes are the same for any number of threads and any
split of the frames into blocks.

Axes: n elements the operator reads, R rows of the operator, b frames of a block, X elements of a whole frame.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.represent.parallel import each, pieces, workers

PANEL = 128
"""Frames turned at a time: 93,478 voxels of ribbon at 2 mm make a panel of 48 MB. On two cores, 300 frames to flat
pixels take 231 ms with panels of 64, 184 with 128, 175 with 150."""
ROWS = 4096
"""Rows of the operator in one piece of work: the piece's product (2 MB) stays in the cache."""
TURN = 8192
"""Elements turned in one piece of work."""


def columns_of(operator: Any, mask: NDArray[np.bool_], *, by_row: bool = False) -> NDArray[np.int64]:
    """Return the elements (n,) that an operator (R, X) reads and that have data.

    In rising order, or ``by_row``: in the order in which the rows first read them, so that the elements of a parcel
    lie side by side in a block.
    """
    read = operator.indices[mask[operator.indices]]
    used = np.zeros(operator.shape[1], bool)
    used[read] = True
    columns = np.flatnonzero(used)
    if by_row:
        first = np.empty(operator.shape[1], np.int64)
        first[read[::-1]] = np.arange(len(read))[::-1]  # of equal indices the last one assigned stays
        columns = columns[np.argsort(first[columns])]
    return np.asarray(columns, np.int64)


def gather(frames: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return chosen elements of whole frames.

    Parameters
    ----------
    frames : (b, X) array
        One frame per row, each in one piece of memory; other types than float32 are converted.
    columns : (n,) array of int

    Returns
    -------
    (n, b) array of float32, Fortran-ordered
    """
    found = np.empty((len(frames), len(columns)), np.float32)

    def one(index: int) -> None:
        frame = np.ascontiguousarray(frames[index], np.float32)
        np.take(frame, columns, out=found[index], mode="clip")  # the mode spares a buffer; no index is outside

    each(one, range(len(frames)))
    return found.T


class Projector:
    """A sparse operator made ready for many blocks of frames of one mask.

    Parameters
    ----------
    operator : csr_array, (R, X)
    columns : (n,) array of int, optional
        The elements a block holds (:func:`columns_of`); by default all. Weights of other elements are left out.
    pick : bool
        Blocks hold all X elements and ``columns`` are picked from them on the way: spares a copy.
    exact : bool
        Add up in float64 and return float64: for sums of many elements.
    device : str
        ``cpu``: numpy and scipy on :func:`boldmill.represent.parallel.workers` threads; else a torch device, as
        ``cuda`` or ``cpu:0``.
    """

    def __init__(
        self,
        operator: Any,
        columns: NDArray[np.int64] | None = None,
        *,
        exact: bool = False,
        pick: bool = False,
        device: str = "cpu",
    ) -> None:
        from scipy.sparse import csr_array

        rows, elements = operator.shape
        chosen = np.arange(elements) if columns is None else columns
        place = np.full(elements, -1, np.int32)  # 32 bits: half the bytes to read
        place[chosen] = np.arange(len(chosen), dtype=np.int32)
        index = place[operator.indices]
        kept = index >= 0
        row = np.repeat(np.arange(rows), np.diff(operator.indptr))[kept]
        ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int32)
        weights = operator.data[kept].astype(np.float64 if exact else np.float32)
        # the terms of a row stay in the operator's own order, whatever the order of the columns
        self._matrix: Any = csr_array((weights, index[kept], ends), shape=(rows, len(chosen)))
        self.shape: tuple[int, int] = (rows, len(chosen))
        self.exact, self.device = exact, device
        self._picked = chosen if pick else None
        self._parts: list[tuple[NDArray[np.int64], Any]] = []
        self._torch: dict[str, Any] = {}
        if not exact:
            # rows that read neighbouring elements one after the other: these stay in the cache
            middle = (ends[:-1] + ends[1:]) // 2
            order = np.argsort(np.append(self._matrix.indices, 0)[middle], kind="stable")
            self._parts = [(order[part], self._matrix[order[part]]) for part in pieces(rows, ROWS)]

    def __call__(self, block: Any, out: Any = None) -> Any:
        """Return the operator times a block.

        Parameters
        ----------
        block : (n, b) array of float32, or torch.Tensor
            Either order of memory; a tensor is worked on where it lies and gives a tensor.
        out : (R, b) array, optional
            Filled and returned; it may be a view of a larger array.

        Returns
        -------
        (R, b) array or tensor, float32 (float64 where ``exact``)
        """
        if not isinstance(block, np.ndarray):
            return self._by_torch(block)
        if self.device != "cpu":
            import torch

            found = self._by_torch(torch.from_numpy(np.ascontiguousarray(block)).to(self.device)).cpu().numpy()
        elif self.exact:
            found = self._sums(block)
        else:
            return self._samples(block, out)
        if out is None:
            return found
        out[...] = found
        return out

    def _sums(self, block: NDArray[np.float32]) -> NDArray[np.float64]:
        frames = np.ascontiguousarray(block.T, np.float32)  # no copy of a block from a file
        index = self._matrix.indices.astype(np.intp)
        if self._picked is not None:
            index = self._picked[index]
        in_order = len(index) == frames.shape[1] and bool((index == np.arange(len(index))).all())
        weights = None if (self._matrix.data == 1).all() else self._matrix.data
        filled = np.flatnonzero(np.diff(self._matrix.indptr))
        starts = self._matrix.indptr[filled]
        total = np.zeros((len(frames), self.shape[0]))

        def some(part: slice) -> None:
            taken, wide = np.empty(len(index), np.float32), np.empty(len(index))
            for number in range(part.start, part.stop):
                if not in_order:
                    np.take(frames[number], index, out=taken, mode="clip")  # the mode spares a buffer
                np.copyto(wide, frames[number] if in_order else taken)
                if weights is not None:
                    wide *= weights
                total[number, filled] = np.add.reduceat(wide, starts)

        if len(filled):
            each(some, pieces(len(frames), -(-len(frames) // workers())))  # one scratch per thread
        return total.T

    def _samples(self, block: NDArray[np.float32], out: Any) -> Any:
        if out is None:
            out = np.empty((self.shape[0], block.shape[1]), np.float32)
        for frames in pieces(block.shape[1], PANEL):
            panel = turned(block[:, frames], self._picked)

            def some(part: tuple[NDArray[np.int64], Any], frames: slice = frames, panel: Any = panel) -> None:
                out[part[0], frames] = part[1] @ panel

            each(some, self._parts)
        return out

    def _by_torch(self, block: Any) -> Any:
        import torch

        where = str(block.device)
        if where not in self._torch:
            ends, index, weights = (
                torch.from_numpy(a).to(block.device)
                for a in (self._matrix.indptr, self._matrix.indices, self._matrix.data)
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
                self._torch[where] = torch.sparse_csr_tensor(ends, index, weights, self.shape, check_invariants=False)
        if self._picked is not None:
            block = block[torch.from_numpy(self._picked).to(block.device)]
        matrix = self._torch[where]
        return matrix @ block.to(matrix.dtype)


def turned(block: NDArray[np.float32], columns: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Return chosen elements of a block (n, b) with the frames of an element side by side; all, if none are named."""
    if block.flags.c_contiguous:
        return block if columns is None else block[columns]
    panel = np.empty((len(block) if columns is None else len(columns), block.shape[1]), np.float32)
    frames = np.ascontiguousarray(block.T)  # no copy of a block from a file

    def some(part: slice) -> None:
        chosen = frames[:, part] if columns is None else np.take(frames, columns[part], axis=1, mode="clip")
        panel[part] = chosen.T

    each(some, pieces(len(panel), TURN))
    return panel


def apply(operator: Any, block: Any, *, out: Any = None, exact: bool = False, device: str = "cpu") -> Any:
    """Return a sparse operator times one block of frames; for many blocks keep a :class:`Projector`.

    Parameters
    ----------
    operator : csr_array, (R, n)
    block : (n, b) array or tensor
    out, exact, device
        As in :class:`Projector`.
    """
    return Projector(operator, exact=exact, device=device)(block, out)
