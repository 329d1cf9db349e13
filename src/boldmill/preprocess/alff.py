"""Amplitude of low-frequency fluctuations (ALFF) and its share of all fluctuations (fALFF), as C-PAC computes them.

ALFF is the standard deviation over time of the regressed series in the pass band, fALFF the ratio of that to the
standard deviation of the regressed, unfiltered series. Zou 2008 (doi 10.1016/j.jneumeth.2008.04.012) defines both by
sums of spectral amplitudes (square roots of power) instead: the values differ, so maps of the two are not comparable.

Axes: T time, N voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess.clean import BLOCK
from boldmill.preprocess.motion import Float

Array = NDArray[Any]
BAND = (0.01, 0.1)
"""Pass band where the cleaning has none, Hz."""


def fluctuation(series: Array, regress: Float, band: Float, *, block: int = BLOCK) -> tuple[Array, Array]:
    """Return ALFF and fALFF (N,) float32; both are 0 where a voxel does not vary.

    Parameters
    ----------
    series : array (T, N)
        Series before cleaning.
    regress : array (T, T)
        Operator that regresses without filtering.
    band : array (T, T)
        Operator of the pass band.
    block : int
        Voxels at once.
    """
    single, both = regress.astype(np.float32), (band @ regress).astype(np.float32)
    out = np.zeros((2, series.shape[1]), dtype=np.float32)
    for start in range(0, series.shape[1], block):
        part = series[:, start : start + block].astype(np.float32)
        part -= part.mean(axis=0)
        inside, whole = ((matrix @ part).std(axis=0, ddof=1, dtype=np.float64) for matrix in (both, single))
        live = (np.ptp(part, axis=0) > 0) & np.isfinite(whole) & (whole > 0)
        out[0, start : start + block] = np.where(live, inside, 0.0)
        out[1, start : start + block] = np.where(live, inside / np.where(live, whole, 1.0), 0.0)
    return out[0], out[1]
