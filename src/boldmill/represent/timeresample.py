"""Resample series to another repetition time as the published flat maps were: anti-alias, then PCHIP.

Chebyshev type I, order 8, ripple 0.05 dB, cutoff 0.8 / q, zero phase, only when downsampling (q = new / old TR);
then a shape-preserving cubic (Fritsch and Butland 1984), as scipy's ``PchipInterpolator``, vectorised in float32.

Axes: T samples before, S samples after, n series (last axis).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault

Series = NDArray[np.float32]
ORDER, RIPPLE, CUTOFF = 8, 0.05, 0.8
SAME = 1e-3
"""Repetition times closer than this share are the same."""


def n_resampled(n: int, tr: float, target_tr: float) -> int:
    """Return the number of samples after resampling: ``int(tr n / target_tr)``, or ``n`` where the TR is the same."""
    return n if abs(target_tr / tr - 1) < SAME else int(tr * n / target_tr + 1e-6)


def antialias(values: Series, factor: float) -> Series:
    """Low-pass series before they are downsampled by ``factor`` (> 1), zero phase.

    Parameters
    ----------
    values : (T, n) array
    factor : float
        New over old repetition time.
    """
    from scipy.signal import cheby1, sosfiltfilt

    sections = cheby1(ORDER, RIPPLE, CUTOFF / factor, output="sos")
    # scipy's own default padding, shortened for runs that are shorter than it
    zeros = min(int((sections[:, 2] == 0).sum()), int((sections[:, 5] == 0).sum()))
    padding = min(3 * (2 * len(sections) + 1 - zeros), len(values) - 1)
    filtered = sosfiltfilt(sections, values.astype(np.float64), axis=0, padtype="even", padlen=padding)
    return np.asarray(filtered, np.float32)


def pchip_slopes(values: Series) -> Series:
    """Return the PCHIP slopes (T, n), per sample, of evenly spaced series (T >= 2).

    Inside: harmonic mean of the two neighbouring differences, 0 where they differ in sign. At the ends: the one-sided
    three-point formula, kept from changing the sign or overshooting.
    """
    step = np.diff(values, axis=0)
    if len(step) == 1:
        return np.repeat(step, 2, axis=0)
    before, after = step[:-1], step[1:]
    product = before * after
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.where(product > 0, 2 * product / (before + after), np.float32(0))

    def end(first: Series, second: Series) -> Series:
        slope = np.float32(1.5) * first - np.float32(0.5) * second
        slope = np.where(np.sign(slope) == np.sign(first), slope, np.float32(0))
        over = (np.sign(first) != np.sign(second)) & (np.abs(slope) > 3 * np.abs(first))
        return np.where(over, 3 * first, slope)[None].astype(np.float32)

    return np.concatenate([end(step[0], step[1]), inner.astype(np.float32), end(step[-1], step[-2])])


def pchip(values: Series, position: NDArray[np.float64]) -> Series:
    """Evaluate PCHIP of evenly spaced series at fractional sample positions.

    Parameters
    ----------
    values : (T, n) array
    position : (S,) array
        In samples; past the last sample the last cubic goes on, as in scipy.

    Returns
    -------
    (S, n) array of float32
    """
    slope = pchip_slopes(values)
    index = np.clip(np.floor(position).astype(int), 0, len(values) - 2)
    t = (position - index).astype(np.float32)[:, None]
    left = values[index]
    rise = values[index + 1] - left
    first, last = slope[index], slope[index + 1]
    # Horner form: fewer roundings in float32 than the four Hermite polynomials
    cubic = left + t * (first + t * ((3 * rise - 2 * first - last) + t * (first + last - 2 * rise)))
    return np.asarray(cubic, np.float32)


def resample(values: Series, tr: float, target_tr: float) -> Series:
    """Resample series from one repetition time to another; the same TR is returned as it is.

    Parameters
    ----------
    values : (T, n) array of float32
    tr, target_tr : float
        s.

    Returns
    -------
    (S, n) array of float32
        ``S = int(tr T / target_tr)``, samples at 0, target_tr, 2 target_tr, ...

    Raises
    ------
    DataFault
        Fewer than two samples before or after.
    """
    if abs(target_tr / tr - 1) < SAME:
        return np.asarray(values, np.float32)
    after = n_resampled(len(values), tr, target_tr)
    if len(values) < 2 or after < 2:
        why = f"{len(values)} volumes of {tr:g} s give {after} of {target_tr:g} s"
        raise DataFault(
            "run too short to resample", "series", why, "leave this run out, or set flatmap.target_tr lower"
        )
    if target_tr > tr:
        values = antialias(values, target_tr / tr)
    return pchip(values, np.arange(after, dtype=np.float64) * (target_tr / tr))
