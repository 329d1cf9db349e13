"""The last step of cleaning: from the series before cleaning to what is parcellated, in one pure function.

The nipype node, `boldmill apply` and the readers of recipes call it, so that they give the same bytes.

Axes: T time, X Y Z voxels, N voxels of the mask in C order.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from boldmill.preprocess import clean
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.design import Plan
from boldmill.preprocess.motion import Float
from boldmill.preprocess.smooth import smooth_masked

Array = NDArray[Any]


def finish_series(series: Array, plan: Plan, mask: Array, zooms: Float, config: CleanConfig) -> Array:
    """Return the cleaned series (T, N) float32: the run's operator over time, then smoothing inside the mask.

    Parameters
    ----------
    series : array (T, N)
        Series before cleaning, in the C order of the mask's voxels; it is overwritten where it is float32.
    plan : Plan
        :func:`boldmill.preprocess.design.plan` of the run.
    mask : bool array (X, Y, Z)
        BOLD mask on the grid of the series.
    zooms : array (3,)
        Voxel size, mm.
    config : CleanConfig
        Settings; ``smoothing`` is the FWHM in mm.
    """
    return smooth_masked(clean.apply(plan.operator, series), mask, zooms, config.smoothing)
