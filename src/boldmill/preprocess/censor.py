"""Censoring: which volumes moved or changed too much, and how their values are interpolated from the kept ones.

Axes: T time, L kept volumes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess.motion import Float

Array = NDArray[Any]

FEWEST = 4
"""Kept volumes a cubic spline needs."""


def over_limits(
    fd: Float | None,
    dvars: Float | None,
    *,
    limit_fd: float,
    limit_dvars: float | None = None,
    before: int = 0,
    after: int = 0,
) -> Array:
    """Return which volumes (bool, T) are over a limit, or within reach of one that is.

    Parameters
    ----------
    fd, dvars : array (T,) or None
        Framewise displacement (mm) and standardised DVARS; NaN is never over a limit.
    limit_fd : float
        FD above which a volume is censored, mm.
    limit_dvars : float or None
        The same for standardised DVARS; None: not used.
    before, after : int
        Volumes censored before and after each one over a limit.
    """
    known = next(values for values in (fd, dvars) if values is not None)
    high = np.zeros(len(known), dtype=bool)
    if fd is not None:
        high |= np.nan_to_num(fd, nan=0.0) > limit_fd
    if dvars is not None and limit_dvars is not None:
        high |= np.nan_to_num(dvars, nan=0.0) > limit_dvars
    out = high.copy()
    for step in range(1, before + 1):
        out[:-step] |= high[step:]
    for step in range(1, after + 1):
        out[step:] |= high[:-step]
    return out


def interpolation(censored: Array, *, where: str = "censoring") -> Float:
    """Return the matrix (T, T) that keeps the kept volumes and interpolates the censored ones from them.

    Between kept volumes by a cubic spline; before the first and after the last by the nearest one (XCP-D).

    Parameters
    ----------
    censored : bool array (T,)
        Volumes to interpolate; their own values have no weight.
    where : str
        Scan, for messages.

    Raises
    ------
    DataFault
        Fewer than 4 volumes are kept.
    """
    from scipy.interpolate import CubicSpline

    out = np.eye(len(censored))
    if not censored.any():
        return out
    kept, gone = np.flatnonzero(~censored), np.flatnonzero(censored)
    if len(kept) < FEWEST:
        why = (
            f"{len(gone)} of {len(censored)} volumes are over the censoring limits, {len(kept)} are kept; "
            f"interpolation needs at least {FEWEST}"
        )
        raise DataFault("cannot clean", where, why, "exclude the run, or raise clean.censor_fd for this data set")
    spline = CubicSpline(kept, np.eye(len(kept)))
    out[gone] = 0.0
    out[np.ix_(gone, kept)] = spline(np.clip(gone, kept[0], kept[-1]))
    return out


def spikes(censored: Array) -> dict[str, Float]:
    """Return one column (T,) per censored volume, 1 there and 0 elsewhere, named after the volume."""
    columns: dict[str, Float] = {}
    for t in np.flatnonzero(censored):
        column = np.zeros(len(censored))
        column[t] = 1.0
        columns[f"spike_{t:04d}"] = column
    return columns
