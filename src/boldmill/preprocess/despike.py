"""Despiking: single outlying time points of voxel series are squashed towards a smooth fit, as by AFNI's 3dDespike.

Axes: ... voxels, T time (last), V voxels of one block, K columns of the smooth basis.

3dDespike fits its curve in the L1 norm, one linear program per voxel. Here the fit is Huber's, by modified residuals
(Huber 1981, section 7.8): residuals are clipped, added back to the fit, and projected again on the same orthonormal
basis, so that all voxels share two matrix products per pass. With a small clip the two fits agree on where a series
lies between its spikes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CUT, LIMIT = 2.5, 4.0
"""Where squashing starts, and the value it tends to, in robust standard deviations (3dDespike's c1 and c2)."""
CLIPS = (2.0, 1.6, 1.3, 1.1, 1.0, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7)
"""Residuals count up to this many robust standard deviations in the fit, pass by pass: wide first, which is fast."""
VOLUMES_PER_WAVE = 30
BLOCK = 8192


def smooth_basis(n_volumes: int) -> Array:
    """Return the orthonormal basis (T, K): a parabola and ``T // 30`` pairs of sine and cosine (3dDespike).

    Parameters
    ----------
    n_volumes : int
        T.
    """
    time = np.linspace(-1.0, 1.0, n_volumes)
    columns = [np.ones(n_volumes), time, time**2]
    turn = 2.0 * np.pi * np.arange(n_volumes) / n_volumes
    for wave in range(1, n_volumes // VOLUMES_PER_WAVE + 1):
        columns += [np.sin(wave * turn), np.cos(wave * turn)]
    basis, _ = np.linalg.qr(np.stack(columns, axis=1))
    return np.asarray(basis)


def robust_fit(series: Array, basis: Array) -> tuple[Array, Array]:
    """Return Huber's fit (V, T) and the robust standard deviation (V,) of what is left.

    Parameters
    ----------
    series : array (V, T)
        Voxel series.
    basis : array (T, K)
        Orthonormal.
    """
    fit = (series @ basis) @ basis.T
    spread = _spread(series - fit)
    for share in CLIPS:
        clip = np.float32(share) * spread[:, np.newaxis]
        residual = np.clip(series - fit, -clip, clip)
        fit += (residual @ basis) @ basis.T
        spread = _spread(series - fit)
    return fit, spread


def _spread(residual: Array) -> Array:
    """Return ``sqrt(pi / 2) * median |residual|`` (V,), 3dDespike's scale."""
    return np.asarray(np.sqrt(np.pi / 2.0) * np.median(np.abs(residual), axis=1), dtype=residual.dtype)


def despike(series: Array, *, block: int = BLOCK) -> Array:
    """Return series with their spikes squashed, float32; everything else keeps its value.

    ``s = (v - fit) / (sqrt(pi/2) MAD)``; where ``|s| > 2.5`` it becomes
    ``sign(s) (2.5 + (4 - 2.5) tanh((|s| - 2.5) / 1.5))``. Constant series and those that are not finite are left alone.

    Parameters
    ----------
    series : array (..., T)
        Raw voxel series, time last.
    block : int
        Voxels at once.

    Returns
    -------
    array (..., T) float32
        A new array.
    """
    out = np.array(series, dtype=np.float32)
    rows = out.reshape(-1, out.shape[-1])
    basis = smooth_basis(out.shape[-1]).astype(np.float32)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        live = np.flatnonzero(np.isfinite(part).all(axis=1) & (np.ptp(part, axis=1) > 0))
        centre = np.median(part[live], axis=1, keepdims=True)
        values = part[live] - centre
        fit, spread = robust_fit(values, basis)
        scale = np.where(spread > 0, spread, np.float32(np.inf))[:, np.newaxis]
        score = (values - fit) / scale
        size = np.abs(score)
        soft = CUT + (LIMIT - CUT) * np.tanh((size - CUT) / (LIMIT - CUT))
        squashed = (
            centre + fit + np.sign(score) * soft.astype(np.float32) * np.where(spread > 0, spread, 0)[:, np.newaxis]
        )
        part[live] = np.where(size > CUT, squashed, part[live])
    # reshape copies where the memory order asks for it
    return rows.reshape(out.shape)
