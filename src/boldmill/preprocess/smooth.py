"""Gaussian smoothing of series inside a mask, normalised by the smoothed mask: nothing leaks over the brain's edge.

Axes: T time, X Y Z voxels, N voxels of the mask in C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess.motion import Float

Array = NDArray[Any]
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
"""Full width at half maximum of a Gaussian, in standard deviations."""


def smooth_masked(series: Array, mask: Array, zooms: Float, fwhm: float) -> Array:
    """Return series (T, N) float32 smoothed over space: ``G(x m) / G(m)`` for a Gaussian ``G`` and the mask ``m``.

    Parameters
    ----------
    series : array (T, N)
        Values in the C order of the mask's voxels; it is overwritten where it is float32.
    mask : bool array (X, Y, Z)
        Where they lie.
    zooms : array (3,)
        Voxel size, mm.
    fwhm : float
        Full width at half maximum, mm; 0 leaves the series as it is.
    """
    from scipy.ndimage import gaussian_filter

    out = np.asarray(series, dtype=np.float32)
    if fwhm <= 0:
        return out
    sigma = fwhm / FWHM / np.asarray(zooms, dtype=np.float64)
    inside = np.asarray(mask, dtype=bool)
    weight = gaussian_filter(inside.astype(np.float32), sigma, mode="constant")[inside]
    volume = np.zeros(inside.shape, dtype=np.float32)
    for row in out:
        volume[inside] = row
        row[:] = gaussian_filter(volume, sigma, mode="constant")[inside] / weight
    return out
