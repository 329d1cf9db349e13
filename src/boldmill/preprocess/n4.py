"""Bias-field correction: N4 (Tustison 2010) of SimpleITK on a coarse grid, applied at full resolution.

Axes: X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boldmill.preprocess.images import Array, Volume, from_sitk, sitk, to_sitk


def one_thread(threads: int = 1) -> None:
    """Pin SimpleITK's threads: with two, reruns differ in the last digits."""
    itk = sitk()
    itk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def n4(
    volume: Volume,
    *,
    iterations: Sequence[int] = (50, 50, 50, 50),
    grid: float = 4.0,
    mask: Array | None = None,
    min_shrink: int = 1,
) -> tuple[Volume, Volume]:
    """Divide an image by its slowly varying bias field.

    Parameters
    ----------
    volume : Volume (X, Y, Z)
        Image; the field is estimated where it is above Otsu's threshold (200 bins).
    iterations : sequence of int
        Iterations per level of the B-spline fit, coarse to fine.
    grid : float
        The field is estimated on voxels of about this size, mm.
    mask : array (X, Y, Z), optional
        Estimate the field here instead.
    min_shrink : int
        Least factor between the image and the estimation grid (2 for BOLD references).

    Returns
    -------
    corrected, bias : Volume
        float32; ``corrected * bias`` is the input.
    """
    itk = sitk()
    image = to_sitk(volume.data, volume.affine)
    factor = [max(min_shrink, int(f)) for f in np.rint(grid / volume.grid.zooms)]
    small = itk.Shrink(image, factor)
    where: Any
    if mask is None:
        where = itk.OtsuThreshold(small, 0, 1, 200)
    else:
        full = to_sitk(np.asarray(mask, dtype=np.float32), volume.affine)
        where = itk.Cast(itk.Shrink(full, factor) > 0.5, itk.sitkUInt8)
    corrector = itk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([int(n) for n in iterations])
    corrector.Execute(small, where)
    log_bias = from_sitk(corrector.GetLogBiasFieldAsImage(image)).data
    bias = np.exp(log_bias.astype(np.float32))
    return volume.like(volume.data / bias), volume.like(bias)
