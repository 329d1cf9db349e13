"""DVARS: the size of the intensity change from one volume to the next, and run summaries of the series.

Axes: T time, V voxels of a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float = NDArray[np.float64]

BLOCK = 8192
"""Voxels at once."""


def dvars(series: Array) -> Float:
    """Return ``sqrt(mean_v (x[t] - x[t-1])^2)`` (T,) in the units of the series; the first value is NaN.

    Parameters
    ----------
    series : array (T, V)
        Voxel time series (Power 2012; no intensity normalisation here).
    """
    return _steps(series, np.ones(series.shape[1], dtype=bool))


def _steps(series: Array, keep: Array) -> Float:
    out = np.full(len(series), np.nan)
    for t in range(1, len(series)):
        step = series[t][keep].astype(np.float64) - series[t - 1][keep]
        out[t] = np.sqrt(np.mean(step * step))
    return out


def std_dvars(series: Array) -> Float:
    """Return standardised DVARS (T,); 1 is what noise of the same autocorrelation gives; the first value is NaN.

    ``DVARS_t / mean_v sqrt(2 (1 - rho_v)) * IQR_v / 1.349`` with ``rho`` the lag-1 autocorrelation (Yule-Walker)
    and quartiles by the lower data point (Nichols 2013; Afyouni & Nichols 2018, doi 10.1016/j.neuroimage.2017.12.098).
    Voxels that do not vary are left out.

    Parameters
    ----------
    series : array (T, V)
        Voxel time series.
    """
    keep = np.zeros(series.shape[1], dtype=bool)
    predicted = np.zeros(series.shape[1])
    for part in _blocks(series):
        values = series[:, part]
        low, high = np.percentile(values, [25, 75], axis=0, method="lower")
        spread = (high.astype(np.float64) - low) / 1.349
        keep[part] = spread > 0
        centred = (values - values.mean(axis=0, dtype=np.float64).astype(values.dtype))[:, spread > 0]
        power = np.einsum("tv,tv->v", centred, centred, dtype=np.float64)
        rho = np.einsum("tv,tv->v", centred[1:], centred[:-1], dtype=np.float64) / power
        predicted[part][spread > 0] = np.sqrt(2.0 * (1.0 - rho)) * spread[spread > 0]
    if not keep.any():
        return np.full(len(series), np.nan)
    return _steps(series, keep) / float(predicted[keep].mean())


def tsnr(series: Array, degree: int = 2) -> Float:
    """Return the temporal signal-to-noise ratio (V,): mean over SD after removing a polynomial of ``degree``.

    Parameters
    ----------
    series : array (T, V)
        Voxel time series before cleaning.
    degree : int
        Degree of the polynomial drift.
    """
    time = np.linspace(-1.0, 1.0, len(series))
    basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(time, degree))
    out = np.zeros(series.shape[1])
    for part in _blocks(series):
        values = series[:, part]
        loads = basis.T @ values
        power = np.einsum("tv,tv->v", values, values, dtype=np.float64) - (loads**2).sum(axis=0)
        spread = np.sqrt(np.maximum(power, 0.0) / max(len(series) - degree - 1, 1))
        np.divide(values.mean(axis=0, dtype=np.float64), spread, out=out[part], where=spread > 0)
    return out


def gcor(series: Array) -> float:
    """Return the mean of the whole correlation matrix, without forming it (Saad 2013).

    ``|mean_v u_v|^2`` with ``u`` the demeaned voxel series at unit length; voxels that do not vary are left out.

    Parameters
    ----------
    series : array (T, V)
        Voxel time series.
    """
    total, count = np.zeros(len(series)), 0
    for part in _blocks(series):
        centred = series[:, part].astype(np.float64)
        centred -= centred.mean(axis=0)
        length = np.sqrt(np.einsum("tv,tv->v", centred, centred))
        keep = length > 1e-6 * np.abs(series[0, part])  # what rounding leaves of a constant voxel
        total += centred[:, keep] @ (1.0 / length[keep])
        count += int(keep.sum())
    if not count:
        return 0.0
    mean = total / count
    return float(mean @ mean)


def _blocks(series: Array) -> Iterator[slice]:
    """Yield blocks of voxels: a long run is many times larger than what these sums need at once."""
    return (slice(start, start + BLOCK) for start in range(0, series.shape[1], BLOCK))
