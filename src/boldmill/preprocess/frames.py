"""A 4D series in a scratch file, read and written in parts: memory holds a volume or a slab, never the series.

The file is ``.npy`` with time outermost, so that a volume is one read. It is read with plain reads, not mapped: mapped
pages count as the process's memory, and batch systems kill for it.

Axes: X Y Z voxels, T time, S voxels of a slab of Z.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SLAB_BYTES = 1 << 28
"""Bytes of one slab of whole time series: what voxelwise temporal steps hold at once."""


class Frames:
    """Series (X, Y, Z, T) float32 in a file; ``frames[..., t]`` reads one volume, ``frames[..., [3, 5]]`` two.

    Parameters
    ----------
    path : str or Path
        A ``.npy`` file of :meth:`create`, or one that :func:`numpy.save` wrote of an array with time outermost.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open(path, "rb") as handle:
            version = np.lib.format.read_magic(handle)
            read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
            shape, fortran, dtype = read(handle)
            self._offset = handle.tell()
        if not fortran or dtype != np.dtype("<f4") or len(shape) != 4:
            raise ValueError(f"{path} is not a float32 series with time outermost")
        self.shape: tuple[int, int, int, int] = shape
        self._size = int(np.prod(shape[:3]))

    @classmethod
    def create(cls, path: str | Path, shape: tuple[int, ...]) -> Frames:
        """Make an empty file for a series of ``shape`` (X, Y, Z, T)."""
        header = {"descr": "<f4", "fortran_order": True, "shape": tuple(int(n) for n in shape)}
        with open(path, "wb") as handle:
            np.lib.format.write_array_header_1_0(handle, header)
            handle.truncate(handle.tell() + 4 * int(np.prod(shape)))
        return cls(path)

    @property
    def n_volumes(self) -> int:
        """T."""
        return self.shape[3]

    def __getitem__(self, key: Any) -> Array:
        """Return a volume (X, Y, Z) or several (X, Y, Z, n), indexed as an array is: ``[..., t]``."""
        dots, at = key
        if dots is not Ellipsis:
            raise IndexError("a series in a file is indexed by time: frames[..., t]")
        if np.ndim(at) == 0:
            return self.volume(int(at))
        return np.stack([self.volume(int(t)) for t in at], axis=-1)

    def volume(self, t: int) -> Array:
        """Return volume ``t`` (X, Y, Z)."""
        if not 0 <= t < self.n_volumes:
            raise IndexError(f"volume {t} of {self.n_volumes}")
        data = np.fromfile(self.path, "<f4", self._size, offset=self._offset + 4 * t * self._size)
        return np.asarray(data.reshape(self.shape[:3], order="F"))

    def write(self, handle: IO[bytes], t: int, data: Array) -> None:
        """Write volume ``t`` through a handle of :meth:`open`."""
        handle.seek(self._offset + 4 * t * self._size)
        handle.write(np.asarray(data, dtype="<f4").tobytes(order="F"))

    def open(self) -> IO[bytes]:
        """Open the file for :meth:`write`."""
        return open(self.path, "r+b")

    def by_voxel(self, target: str | Path, step: Callable[[Array, int], Array]) -> Frames:
        """Return a new series, made slab by slab of whole time series.

        Parameters
        ----------
        target : path
            File of the new series.
        step : callable
            Given a slab (X, Y, S, T) and the Z index of its first slice, returns the new slab; voxels are
            independent of each other.
        """
        x, y, depth, count = self.shape
        made = Frames.create(target, self.shape)
        thick = max(1, SLAB_BYTES // (4 * x * y * count))
        with open(self.path, "rb") as source, made.open() as sink:
            for low in range(0, depth, thick):
                deep = min(thick, depth - low)
                slab = np.empty((x, y, deep, count), dtype=np.float32, order="F")
                for t in range(count):
                    source.seek(self._at(t, low))
                    part = np.fromfile(source, "<f4", x * y * deep)
                    slab[..., t] = part.reshape((x, y, deep), order="F")
                new = np.asarray(step(slab, low), dtype="<f4")
                for t in range(count):
                    sink.seek(made._at(t, low))
                    sink.write(new[..., t].tobytes(order="F"))
        return made

    def _at(self, t: int, z: int) -> int:
        return self._offset + 4 * (t * self._size + z * self.shape[0] * self.shape[1])
