"""The BOLD brain mask: T1w mask in BOLD space, inside every volume's field of view, where there is signal.

Axes: N voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault

Array = NDArray[Any]

MIN_VOXELS = 100


def signal_mask(mean: Array, varies: Array, seen: Array, *, fraction: float = 0.2) -> Array:
    """Return which brain voxels carry signal.

    Parameters
    ----------
    mean : array (N,)
        Mean over time of the voxels inside the T1w brain mask, unscaled.
    varies : bool array (N,)
        The voxel is not constant.
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
    keep = np.asarray(seen & varies & (mean > fraction * float(np.median(mean[seen]))))
    if keep.sum() < MIN_VOXELS:
        raise DataFault("cannot mask BOLD", "brain mask", f"{int(keep.sum())} brain voxels carry signal", fix)
    return keep
