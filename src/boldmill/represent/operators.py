"""The sparse operators: parcels of a volume or a surface, volume to a mesh, a mesh to the flat grid.

Voxel columns are numbered in the order of the NIfTI file (i fastest), so that a block of volumes is a matrix without
being copied. Every operator is a csr_array of float32.

Axes: X voxels (i fastest), V vertices (left, then right), P parcels in id order, N pixels of the flat mask, D depths.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic
from boldmill.errors import MachineFault


def membership(labels: NDArray[Any], ids: list[int]) -> Any:
    """Return the (P, n) operator that sums the elements of each parcel.

    Parameters
    ----------
    labels : (n,) array of int
    ids : list of int
        Parcel ids, one per row.

    Returns
    -------
    scipy.sparse.csr_array, (P, n)
        Ones where an element belongs to the parcel.
    """
    from scipy.sparse import csr_array

    row_of = np.full(int(max([*ids, int(labels.max(initial=0))])) + 1, -1)
    row_of[ids] = np.arange(len(ids))
    row = row_of[labels]
    column = np.flatnonzero(row >= 0)
    matrix = csr_array((np.ones(len(column), np.float32), (row[column], column)), shape=(len(ids), len(labels)))
    matrix.sort_indices()
    return matrix


def trilinear(points: NDArray[np.float64], affine: NDArray[np.float64], shape: tuple[int, int, int]) -> Any:
    """Return the operator that samples a volume at points, trilinearly, averaged over the depths.

    Parameters
    ----------
    points : (D, V, 3) array
        Positions in the volume's space, mm; NaN for a vertex that is not sampled.
    affine : (4, 4) array
    shape : tuple of 3 int

    Returns
    -------
    scipy.sparse.csr_array, (V, X)
        Rows sum to 1 where all eight neighbours at all depths lie inside the grid, to less elsewhere.
    """
    from scipy.sparse import csr_array

    depths, vertices = points.shape[:2]
    inverse = np.linalg.inv(affine)
    position = points @ inverse[:3, :3].T + inverse[:3, 3]
    position = np.where(np.isfinite(position), position, -10.0)  # outside every grid
    low = np.floor(position).astype(np.int64)
    part = position - low
    size = np.array(shape)
    stride = np.array([1, shape[0], shape[0] * shape[1]])
    rows, columns, weights = [], [], []
    vertex = np.broadcast_to(np.arange(vertices), (depths, vertices))
    for corner in np.ndindex(2, 2, 2):
        step = np.array(corner)
        index = low + step
        weight = np.where(step == 1, part, 1 - part).prod(-1)
        inside = ((index >= 0) & (index < size)).all(-1) & (weight > 0)
        rows.append(vertex[inside])
        columns.append((index[inside] * stride).sum(-1))
        weights.append(weight[inside] / depths)
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    matrix = csr_array(entries, shape=(vertices, int(np.prod(size))))
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix.astype(np.float32)


def save_arrays(path: Path, **arrays: NDArray[Any]) -> Path:
    """Write arrays as ``.npz`` atomically; numpy stores no time, so equal arrays give equal bytes."""
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    with atomic(path) as temporary:
        temporary.write_bytes(packed.getvalue())
    return path


def save_raw(path: Path, **arrays: Any) -> Path:
    """Write arrays as an uncompressed ``.npz`` atomically (z-scored float16 does not compress)."""
    with atomic(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)
    return path


def save_operator(path: Path, matrix: Any) -> Path:
    """Write a csr_array as ``.npz`` (``data indices indptr shape``), atomically, with bytes fixed by the content."""
    return save_arrays(
        path,
        data=matrix.data.astype(np.float32),
        indices=matrix.indices.astype(np.int32),
        indptr=matrix.indptr.astype(np.int64),
        shape=np.array(matrix.shape, np.int64),
    )


def load_operator(path: str | Path) -> Any:
    """Read an operator written by :func:`save_operator`.

    Raises
    ------
    MachineFault
        The file is missing or is not such an operator.
    """
    from scipy.sparse import csr_array

    try:
        with np.load(path, allow_pickle=False) as stored:
            parts = (stored["data"], stored["indices"], stored["indptr"])
            rows, columns = (int(n) for n in stored["shape"])
    except (OSError, KeyError, ValueError) as error:
        raise MachineFault("cannot read operator", path, str(error), "rerun `boldmill operators`") from error
    return csr_array(parts, shape=(rows, columns))
