"""Brain masks: from a registered head template, or from the non-zero voxels of an extracted brain.

Axes: X Y Z voxels.
"""

from __future__ import annotations

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess.foreground import block_mean, largest_component
from boldmill.preprocess.images import Array, Grid, Volume
from boldmill.preprocess.syn import Warp
from boldmill.preprocess.transforms import resample

CLOSING = 4
"""Voxels by which the template mask is closed: shuts the cisterns, brings the ventricles inside."""
SMALLEST_ML = 300.0


def close_and_fill(mask: Array, voxels: int) -> Array:
    """Close a mask by ``voxels`` steps and fill its holes (padded first: the edge of the grid must not erode it)."""
    from scipy.ndimage import binary_closing, binary_fill_holes

    mask = np.asarray(mask, dtype=bool)
    if voxels > 0:  # scipy repeats until nothing changes when asked for 0 iterations
        padded = np.pad(mask, voxels + 1)
        closed = binary_closing(padded, iterations=voxels)
        mask = closed[(slice(voxels + 1, -voxels - 1),) * 3]
    return np.asarray(binary_fill_holes(mask))


def mask_from_template(warp: Warp, template_mask: Volume, subject: Volume) -> Array:
    """Bring the template's mask to the subject: linear, cut at 0.5, largest component, holes filled.

    The mask is mapped on voxels of about 2 mm (the template has no finer ones) and interpolated to the subject's.

    Raises
    ------
    DataFault
        The result is smaller than any brain: the registration failed.
    """
    from scipy.ndimage import affine_transform, binary_fill_holes

    coarse = block_mean(subject, 2.0)
    value = resample(template_mask, coarse.grid, warp.to_template, order=1)
    step = np.linalg.inv(value.affine) @ subject.affine
    full = affine_transform(
        value.data, np.diag(step[:3, :3]), step[:3, 3], subject.data.shape, np.float32, order=1, mode="nearest"
    )
    return checked(binary_fill_holes(largest_component(full > 0.5)), subject.grid)


def mask_from_nonzero(brain: Volume) -> Array:
    """Mask of an extracted brain: non-zero voxels, largest component, closed by about 4 mm, filled."""
    voxels = round(4.0 / float(brain.grid.zooms.min()))
    return checked(close_and_fill(largest_component(brain.data > 0), voxels), brain.grid)


def checked(mask: Array, grid: Grid) -> Array:
    """Return the mask unless it is too small to be a brain."""
    size = float(mask.sum()) * grid.voxel_ml
    if size < SMALLEST_ML:
        why = f"the brain mask has {size:.0f} ml"
        raise DataFault("cannot find the brain", "T1w image", why, "look at the image; exclude it if it shows no brain")
    return np.asarray(mask, dtype=bool)
