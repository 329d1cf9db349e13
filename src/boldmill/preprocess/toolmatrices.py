"""Rigid matrices of FSL, AFNI and ITK to world matrices (RAS mm).

FSL: a FLIRT matrix maps the scaled-mm coordinates of the moving image to those of the reference. Scaled mm are voxel
indices times voxel sizes, with the first axis flipped where the affine has a positive determinant ("neurological").
AFNI: `-1Dmatrix_save` writes 12 numbers per volume, the 3x4 matrix (row by row) from base to input in DICOM
coordinates (LPS mm). Both know nothing of obliquity here, because they are given plumb copies (:func:`plumb`).

Axes: T time; 4x4 matrices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from boldmill.errors import MachineFault
from boldmill.preprocess.images import RAS_TO_LPS, Array, Float, Grid


def scaled_mm(grid: Grid) -> Float:
    """Return the matrix (4, 4) from voxel indices to FSL's scaled millimetres."""
    out = np.diag([*grid.zooms, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        out[0, 0] = -grid.zooms[0]
        out[0, 3] = (grid.shape[0] - 1) * grid.zooms[0]
    return out


def world_to_scaled(grid: Grid) -> Float:
    """Return the matrix (4, 4) from world to FSL's scaled millimetres."""
    return np.asarray(scaled_mm(grid) @ np.linalg.inv(grid.affine))


def from_fsl(matrix: Array, moving: Grid, reference: Grid) -> Float:
    """Return the world matrix from moving to reference of a FLIRT matrix (4, 4)."""
    return np.asarray(np.linalg.inv(world_to_scaled(reference)) @ matrix @ world_to_scaled(moving))


def to_fsl(world: Array, moving: Grid, reference: Grid) -> Float:
    """Return the FLIRT matrix of a world matrix (4, 4) from moving to reference: the inverse of :func:`from_fsl`."""
    return np.asarray(world_to_scaled(reference) @ world @ np.linalg.inv(world_to_scaled(moving)))


def read_mcflirt(folder: Path, count: int, grid: Grid) -> Float:
    """Return motion (T, 4, 4), reference world to volume world, of the ``MAT_0000...`` files of ``mcflirt -mats``.

    They map each volume to the reference, the opposite of what is kept.

    Raises
    ------
    MachineFault
        The program left another number of files.
    """
    paths = sorted(folder.glob("MAT_*"))
    if len(paths) != count:
        why = f"{len(paths)} matrices for {count} volumes"
        raise MachineFault("MCFLIRT failed", folder, why, "run it by hand on this image, and look at its messages")
    return np.stack([np.linalg.inv(from_fsl(np.loadtxt(path), grid, grid)) for path in paths])


def plumb(grid: Grid) -> Grid:
    """Return the same voxels on an axis-aligned RAS grid about the world's origin: what AFNI is shown.

    AFNI leaves the obliquity of a header out of its coordinates in some programs and in others not; a plumb copy leaves
    no choice. The voxels are not touched, so a left-handed grid becomes a mirrored head, which a rigid registration of
    the series with itself does not notice.
    """
    affine = np.diag([*grid.zooms, 1.0])
    affine[:3, 3] = -grid.zooms * (np.array(grid.shape) - 1) / 2
    return Grid(grid.shape, affine)


def from_plumb(matrices: Array, grid: Grid) -> Float:
    """Return world matrices (T, 4, 4) of matrices between plumb copies of one grid."""
    across = grid.affine @ np.linalg.inv(plumb(grid).affine)
    return np.asarray(across @ matrices @ np.linalg.inv(across))


def read_volreg(path: Path, count: int, grid: Grid) -> Float:
    """Return motion (T, 4, 4), reference world to volume world, of ``3dvolreg -1Dmatrix_save`` on a plumb copy.

    Raises
    ------
    MachineFault
        Another number of rows than volumes, or not 12 numbers per row.
    """
    rows = np.atleast_2d(np.loadtxt(path, comments="#"))
    if rows.shape != (count, 12):
        why = f"the table is {rows.shape}, expected {(count, 12)}"
        raise MachineFault("3dvolreg failed", path, why, "run it by hand on this image, and look at its messages")
    dicom = np.tile(np.eye(4), (count, 1, 1))
    dicom[:, :3] = rows.reshape(count, 3, 4)
    return from_plumb(RAS_TO_LPS @ dicom @ RAS_TO_LPS, grid)
