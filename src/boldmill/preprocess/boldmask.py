"""The BOLD brain mask: T1w mask in BOLD space, inside every volume's field of view, where there is signal.

Axes: T time, N voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault

Array = NDArray[Any]

MIN_VOXELS = 100


def signal_mask(series: Array, seen: Array, *, fraction: float = 0.2) -> Array:
    """Return which brain voxels carry signal.

    Parameters
    ----------
    series : array (T, N)
        Series of the voxels inside the T1w brain mask, unscaled.
    seen : bool array (N,)
        Inside the field of view of every volume.
    fraction : float
        A voxel is kept where its mean is above this share of the median over the seen voxels: this follows
        dropout without opening or dilation.

    Returns
    -------
    bool array (N,)

    Raises
    ------
    DataFault
        Next to nothing of the brain was imaged.
    """
    fix = "look at the coregistration picture; exclude the run if the brain is not in the field of view"
    if seen.sum() < MIN_VOXELS:
        why = f"{int(seen.sum())} of {len(seen)} brain voxels are in the field of view of every volume"
        raise DataFault("cannot mask BOLD", "brain mask", why, fix)
    mean = series.mean(axis=0, dtype=np.float64)
    keep = np.asarray(seen & (mean > fraction * float(np.median(mean[seen]))))
    keep &= np.ptp(series, axis=0) > 0
    if keep.sum() < MIN_VOXELS:
        raise DataFault("cannot mask BOLD", "brain mask", f"{int(keep.sum())} brain voxels carry signal", fix)
    return keep
