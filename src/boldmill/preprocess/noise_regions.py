"""Where further noise components are taken from: the most variable voxels (tCompCor), and the crown around the brain.

Axes: T time, V voxels, X Y Z voxels of the native grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess.compcor import high_pass

Array = NDArray[Any]

SHARE = 0.02
"""Share of the brain's voxels that tCompCor takes (fMRIPrep)."""
FEWEST = 10
"""Voxels tCompCor takes at least."""
WIDTH = 2
"""Width of the crown, voxels (fMRIPrep)."""
CROWN_COMPONENTS = 24
"""Components of the crown that are kept (fMRIPrep)."""


def variable_voxels(
    series: Array, tr: float, *, cutoff: float = 128.0, skip: int = 0, share: float = SHARE, block: int = 8192
) -> Array:
    """Return the voxels (bool, V) whose high-passed series vary most (Behzadi 2007: tCompCor).

    Parameters
    ----------
    series : array (T, V)
        Voxel series of the brain.
    tr : float
        Repetition time, s.
    cutoff : float
        Period of the high-pass, s.
    skip : int
        Non-steady first volumes, not used.
    share : float
        Share of the voxels.
    block : int
        Voxels at once.
    """
    spread = np.concatenate(
        [
            high_pass(series[skip:, start : start + block], tr, cutoff).std(axis=0)
            for start in range(0, series.shape[1], block)
        ]
    )
    count = min(len(spread), max(int(np.ceil(share * len(spread))), FEWEST))
    out = np.zeros(len(spread), dtype=bool)
    out[np.argsort(-spread, kind="stable")[:count]] = True
    return out


def crown(brain: Array, width: int = WIDTH) -> Array:
    """Return the voxels (bool, X, Y, Z) around the brain: its dilation by a ball, without the brain.

    Source: Patriat 2017 (doi 10.1016/j.neuroimage.2016.10.003), as in fMRIPrep.

    Parameters
    ----------
    brain : bool array (X, Y, Z)
        Brain mask on the native grid.
    width : int
        Radius of the ball, voxels.
    """
    from scipy.ndimage import binary_dilation

    reach = np.indices((2 * width + 1,) * 3) - width
    ball = (reach**2).sum(axis=0) <= width**2
    inside = np.asarray(brain, dtype=bool)
    return np.asarray(binary_dilation(inside, ball) & ~inside)
