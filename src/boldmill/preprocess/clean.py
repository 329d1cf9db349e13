"""Cleaning: censor, detrend, filter and regress; all of it is one T x T operator.

Axes: T time, K regressors, V voxels, L kept (not interpolated) volumes.

Projections do not commute (Lindquist 2019, doi 10.1002/hbm.24528): filtering both before the regression is what leaves
neither nuisance nor out-of-band power (``order: both``, semantics of ``nilearn.signal.clean``). ``order: after``
regresses first and filters what is left, as C-PAC does. Every step is linear in time, interpolation included, so the
operator is built once by taking the identity through the steps, and applied in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess.censor import interpolation
from boldmill.preprocess.drifts import detrend
from boldmill.preprocess.motion import Float

Array = NDArray[Any]

BLOCK = 16_384
ALIKE = 1e-7
"""A regressor is dropped where the others explain it up to this share."""
GONE = 1e-6
"""A regressor is dropped where the filter leaves less than this share of its standard deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Temporal:
    """What is done over time besides the regressors.

    Parameters
    ----------
    low, high : float or None
        Pass band, Hz; None: no edge.
    degree : int
        Degree of the polynomial that is removed (0: the mean).
    kind : str
        ``"butterworth"`` (forward and backward) or ``"fft"`` (ideal Fourier box).
    filter_order : int
        Order of the Butterworth filter.
    order : str
        ``"both"``: filter data and regressors, then regress; ``"after"``: regress, then filter.
    """

    low: float | None = None
    high: float | None = None
    degree: int = 0
    kind: str = "butterworth"
    filter_order: int = 5
    order: str = "both"


def butterworth(signals: Float, tr: float, low: float | None, high: float | None, order: int = 5) -> Float:
    """Filter signals (T, V) forward and backward with a Butterworth filter.

    Parameters
    ----------
    signals : array (T, V)
        Series.
    tr : float
        Repetition time, s.
    low, high : float or None
        Pass band, Hz; None: no edge.
    order : int
        Order of the filter in one direction.

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
    sections = butter(order, edges if len(edges) == 2 else edges[0], btype=kind, output="sos", fs=1.0 / tr)
    needed = 3 * (2 * len(sections) + 1)
    if len(signals) <= needed:
        why = f"{len(signals)} volumes are too few for the temporal filter, which needs more than {needed}"
        fix = "for this data set set overrides.clean to {drift: linear, band_low: null, band_high: null}"
        raise DataFault("cannot clean", "temporal filter", why, fix)
    return np.asarray(sosfiltfilt(sections, signals, axis=0))


def fourier_box(signals: Float, tr: float, low: float | None, high: float | None) -> Float:
    """Filter signals (T, V) with an ideal Fourier box: C-PAC's default band-pass, without its faults.

    The mean is removed, zeros are added up to the next power of two ``N``, the bins ``ceil(low N TR)`` to
    ``floor(high N TR)`` are kept, and the added zeros cut off again. There is no taper.

    Parameters
    ----------
    signals : array (T, V)
        Series.
    tr : float
        Repetition time, s.
    low, high : float or None
        Pass band, Hz; None: no edge.
    """
    if low is None and high is None:
        return signals
    count = len(signals)
    padded = 1 << (count - 1).bit_length()
    spectrum = np.fft.rfft(signals - signals.mean(axis=0), n=padded, axis=0)
    rounding = 1e-9
    first = 0 if low is None else int(np.ceil(low * padded * tr - rounding))
    last = len(spectrum) - 1 if high is None else int(np.floor(high * padded * tr + rounding))
    spectrum[:first] = 0.0
    spectrum[last + 1 :] = 0.0
    return np.asarray(np.fft.irfft(spectrum, n=padded, axis=0)[:count])


def band_pass(signals: Float, tr: float, temporal: Temporal) -> Float:
    """Return signals (T, V) through the filter of ``temporal``."""
    if temporal.kind == "fft":
        return fourier_box(signals, tr, temporal.low, temporal.high)
    return butterworth(signals, tr, temporal.low, temporal.high, temporal.filter_order)


def basis_of(confounds: Float, kept: Array | None = None) -> tuple[Float, Float]:
    """Return an orthonormal basis (L, rank) of the regressors on the kept volumes, and its values on all (T, rank).

    Columns are centred and scaled on the kept volumes first.

    Parameters
    ----------
    confounds : array (T, K)
        Regressors.
    kept : int array (L,), optional
        Volumes that are fitted; all by default.
    """
    from scipy.linalg import qr, solve_triangular

    rows = np.arange(len(confounds)) if kept is None else kept
    part = confounds[rows]
    spread = part.std(axis=0)
    scaled = (confounds - part.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    if not scaled.shape[1]:
        return np.zeros((len(rows), 0)), np.zeros((len(confounds), 0))
    q, r, order = qr(scaled[rows], mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    rank = int((diagonal > ALIKE * diagonal[0]).sum())
    every = solve_triangular(r[:rank, :rank], scaled[:, order[:rank]].T, trans="T").T
    every[rows] = q[:, :rank]
    return np.asarray(q[:, :rank]), np.asarray(every)


def orthonormal(confounds: Float) -> Float:
    """Return an orthonormal basis (T, rank) of the columns, each centred and scaled to unit variance first."""
    return basis_of(confounds)[0]


def informative(filled: Float, confounds: Float, kept: Array) -> Float:
    """Return the interpolated, detrended regressors (T, K') that vary on the kept volumes, at unit variance there.

    Parameters
    ----------
    filled : array (T, K)
        Regressors after interpolation and detrending.
    confounds : array (T, K)
        The same as they were given: what is left of a column is judged against its own size.
    kept : int array (L,)
        Kept volumes.
    """
    spread = filled[kept].std(axis=0)
    varies = spread > ALIKE * confounds.std(axis=0)
    return np.asarray(filled[:, varies] / spread[varies])


def operator(
    n_volumes: int, tr: float, confounds: Float, temporal: Temporal, *, censored: Array | None = None
) -> tuple[Float, int]:
    """Return the cleaning operator (T, T) and the rank of the regressors.

    Censored volumes are interpolated in data and regressors before anything else, and left out of the fit; the fit is
    applied to all volumes (XCP-D). What was measured in a censored volume has no influence on any volume of the result.

    Parameters
    ----------
    n_volumes : int
        T.
    tr : float
        Repetition time, s.
    confounds : array (T, K)
        Regressors, unfiltered.
    temporal : Temporal
        Trend, filter and order.
    censored : bool array (T,), optional
        Volumes to interpolate; none by default.
    """
    gone = np.zeros(n_volumes, dtype=bool) if censored is None else censored
    kept = np.flatnonzero(~gone)
    data = detrend(interpolation(gone), temporal.degree)
    plain = informative(data @ confounds, confounds, kept)
    if temporal.order == "both":
        data, plain = band_pass(data, tr, temporal), band_pass(plain, tr, temporal)
        plain = plain[:, plain[kept].std(axis=0) > GONE]
    inside, every = basis_of(plain, kept)
    out = data - every @ (inside.T @ data[kept])
    if temporal.order == "after":
        out = band_pass(out, tr, temporal)
    return out - out.mean(axis=0), inside.shape[1]


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
