"""Regional homogeneity (ReHo): Kendall's coefficient of concordance of a voxel and its 26 neighbours (Zang 2004).

``W = 12 (sum_i R_i^2 - n Rbar^2) / (K^2 (n^3 - n) - K sum_j T_j)`` with ``R_i`` the sum over K voxels of the ranks of
time point i, n time points, and ``T_j = sum (t^3 - t)`` over the ties of voxel j (Kendall & Gibbons 1990). Without ties
this is C-PAC's formula. As there, only neighbours inside the mask count, so that K is smaller at its edge.

Axes: T time, X Y Z voxels, N voxels of the mask in C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 4096


def ranks(series: Array, *, block: int = BLOCK) -> tuple[Array, Array]:
    """Return the ranks over time (T, N) float32, the mean rank where values tie, and ``T_j`` of each voxel (N,).

    Parameters
    ----------
    series : array (T, N)
        Voxel series.
    block : int
        Voxels at once.
    """
    from scipy.stats import rankdata

    count = len(series)
    out = np.empty(series.shape, dtype=np.float32)
    squares = np.empty(series.shape[1])
    for start in range(0, series.shape[1], block):
        part = rankdata(series[:, start : start + block], axis=0)
        out[:, start : start + block] = part
        squares[start : start + block] = (part**2).sum(axis=0)
    # mean ranks lower the sum of squares by T / 12
    return out, 12.0 * (count * (count + 1) * (2 * count + 1) / 6.0 - squares)


def reho(series: Array, mask: Array) -> Array:
    """Return Kendall's W (N,) float32 of each voxel's neighbourhood, 0 for a voxel without neighbours.

    Parameters
    ----------
    series : array (T, N)
        Cleaned series.
    mask : bool array (X, Y, Z)
        Where the voxels lie.
    """
    from scipy.ndimage import uniform_filter

    inside = np.asarray(mask, dtype=bool)
    volume = np.zeros(inside.shape)

    def around(values: Array) -> Array:
        volume[inside] = values
        return np.asarray(27.0 * uniform_filter(volume, 3, mode="constant")[inside])

    count = len(series)
    ranked, ties = ranks(series)
    n_voxels = np.rint(around(np.ones(ranked.shape[1])))
    centre = n_voxels * (count + 1) / 2.0
    scatter = np.zeros(ranked.shape[1])
    for row in ranked:
        scatter += (around(row) - centre) ** 2
    scale = n_voxels**2 * (count**3 - count) - n_voxels * around(ties)
    defined = (n_voxels > 1) & (scale > 0.5)
    return np.where(defined, 12.0 * scatter / np.where(defined, scale, 1.0), 0.0).astype(np.float32)
