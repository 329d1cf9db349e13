"""Cleaning: filter data and confounds with the same filter, then regress; all of it is one T x T operator.

Axes: T time, K regressors, V voxels.

Projections do not commute (Lindquist 2019, doi 10.1002/hbm.24528): filtering both before the regression is what leaves
neither nuisance nor out-of-band power. Semantics of ``nilearn.signal.clean`` (Butterworth of order 5, forward and
backward). Every step is linear in time, so the operator is built once by filtering the identity and applied in blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess.motion import Float

Array = NDArray[Any]

ORDER = 5
BLOCK = 16_384


def detrend(signals: Float, linear: bool) -> Float:
    """Return signals (T, V) without their mean, and without their linear trend where asked."""
    time = np.linspace(-1.0, 1.0, len(signals))
    basis = np.stack([np.ones(len(signals)), time], axis=1)[:, : 2 if linear else 1]
    basis, _ = np.linalg.qr(basis)
    return np.asarray(signals - basis @ (basis.T @ signals))


def butterworth(signals: Float, tr: float, low: float | None, high: float | None) -> Float:
    """Filter signals (T, V) forward and backward with a Butterworth filter of order 5.

    Parameters
    ----------
    signals : array (T, V)
        Series.
    tr : float
        Repetition time, s.
    low, high : float or None
        Pass band, Hz; None: no edge.

    Raises
    ------
    DataFault
        Too few volumes for the filter's edge padding.
    """
    from scipy.signal import butter, sosfiltfilt

    if low is None and high is None:
        return signals
    edges = [edge for edge in (low, high) if edge is not None]
    kind = "band" if len(edges) == 2 else ("high" if low is not None else "low")
    sections = butter(ORDER, edges if len(edges) == 2 else edges[0], btype=kind, output="sos", fs=1.0 / tr)
    needed = 3 * (2 * len(sections) + 1)
    if len(signals) <= needed:
        why = f"{len(signals)} volumes are too few for the temporal filter, which needs more than {needed}"
        fix = "for this data set set overrides.clean to {drift: linear, band_low: null, band_high: null}"
        raise DataFault("cannot clean", "temporal filter", why, fix)
    return np.asarray(sosfiltfilt(sections, signals, axis=0))


def orthonormal(confounds: Float) -> Float:
    """Return an orthonormal basis (T, rank) of the columns, each scaled to unit variance first."""
    from scipy.linalg import qr

    spread = confounds.std(axis=0)
    scaled = (confounds - confounds.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    if not scaled.shape[1]:
        return np.zeros((len(confounds), 0))
    q, r, _ = qr(scaled, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    return np.asarray(q[:, diagonal > 1e-7 * diagonal[0]])


def operator(
    n_volumes: int, tr: float, confounds: Float, *, low: float | None, high: float | None, linear: bool
) -> tuple[Float, int]:
    """Return the cleaning operator (T, T) and the rank of the filtered confounds.

    Parameters
    ----------
    n_volumes : int
        T.
    tr : float
        Repetition time, s.
    confounds : array (T, K)
        Regressors, unfiltered.
    low, high : float or None
        Pass band, Hz.
    linear : bool
        Whether a linear trend is removed first (the mean always is).
    """
    filtered = butterworth(detrend(np.eye(n_volumes), linear), tr, low, high)
    basis = orthonormal(filtered @ confounds)
    out = filtered - basis @ (basis.T @ filtered)
    return out - out.mean(axis=0), basis.shape[1]


def effective_freedom(matrix: Float) -> float:
    """Return the degrees of freedom white noise keeps under an operator: ``tr(S)^2 / tr(S^2)``, ``S = M M'``."""
    covariance = matrix @ matrix.T
    power = float((covariance**2).sum())
    return float(np.trace(covariance)) ** 2 / power if power > 0 else 0.0


def apply(matrix: Float, series: Array, *, block: int = BLOCK) -> Array:
    """Return the cleaned series (T, V) float32; voxels that are constant or not finite become 0.

    Parameters
    ----------
    matrix : array (T, T)
        Cleaning operator.
    series : array (T, V)
        Series; it is overwritten where it is float32.
    block : int
        Voxels at once.
    """
    out = np.asarray(series, dtype=np.float32)
    single = matrix.astype(np.float32)
    for start in range(0, out.shape[1], block):
        part = out[:, start : start + block]
        mean = part.mean(axis=0, dtype=np.float64).astype(np.float32)
        live = np.isfinite(mean) & (np.ptp(part, axis=0) > 0)
        centred = np.where(live, part - mean, np.float32(0))
        out[:, start : start + block] = single @ centred
    return out
