"""Grids, rigid and affine transforms in world coordinates (RAS, mm), and images with reproducible bytes.

Axis legend: X Y Z voxel axes of an image; N points; 4x4 matrices act on columns.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic

Floats = NDArray[np.floating[Any]]

GZIP_LEVEL = 1
"""Noise hardly compresses: higher levels save 5 % of the bytes and cost twice the time."""


def rotation(angles: Floats) -> Floats:
    """Return the 3x3 matrix ``Rx @ Ry @ Rz`` of rotations about the world axes (rad, right-handed)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def about_centre(linear: Floats, centre: Floats, shift: Floats) -> Floats:
    """Return the 4x4 matrix of ``x -> linear (x - centre) + centre + shift``."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre + shift - linear @ centre
    return matrix


def apply(matrix: Floats, points: Floats) -> Floats:
    """Apply a 4x4 matrix to points of shape (N, 3) or (X, Y, Z, 3)."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def world_grid(affine: Floats, shape: tuple[int, ...]) -> Floats:
    """Return the world coordinates of every voxel, shape (X, Y, Z, 3), float32."""
    axes = [np.arange(n, dtype=np.float32) for n in shape[:3]]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return apply(affine.astype(np.float32), grid)


def centred_affine(shape: tuple[int, int, int], voxel_mm: float, centre: Floats, tilt: Floats | None = None) -> Floats:
    """Return the affine of an isotropic grid whose middle lies at ``centre``; ``tilt`` (3x3) makes it oblique."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if tilt is None else tilt) * voxel_mm
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def sample(volume: Floats, affine: Floats, points: Floats, order: int = 1) -> Floats:
    """Interpolate a volume at world points of shape (..., 3); 0 outside the grid."""
    from scipy import ndimage

    index = np.moveaxis(apply(np.linalg.inv(affine), points), -1, 0)
    return np.asarray(ndimage.map_coordinates(volume, index, order=order, mode="constant", cval=0.0))


def smooth_noise(
    generator: np.random.Generator, shape: tuple[int, ...], affine: Floats, points: Floats, sigma_mm: float
) -> Floats:
    """Return a smooth random field of unit variance at ``points``, shape (..., 3) -> (...).

    White noise on a coarse grid over the same box, smoothed by a Gaussian of ``sigma_mm``.
    """
    from scipy import ndimage

    step = sigma_mm / 2.5
    corners = apply(affine, np.array([[i, j, k] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])]))
    low, high = corners.min(axis=0) - 2 * sigma_mm, corners.max(axis=0) + 2 * sigma_mm
    coarse = tuple(int(n) for n in np.ceil((high - low) / step))
    field = ndimage.gaussian_filter(generator.standard_normal(coarse), sigma_mm / step, mode="wrap")
    field /= field.std()
    grid = np.diag([step, step, step, 1.0])
    grid[:3, 3] = low
    return sample(field.astype(np.float32), grid, points, order=1)


def save_nifti(
    path: Path,
    data: NDArray[Any],
    affine: Floats,
    *,
    tr: float | None = None,
    slope: float | None = None,
    describe: str = "",
) -> Path:
    """Write a NIfTI image with reproducible bytes (the gzip header carries no time and no name).

    Parameters
    ----------
    data : array (X, Y, Z) or (X, Y, Z, T)
        Stored with its own type; with ``slope`` it holds the integers of ``value / slope``.
    tr : float, optional
        Repetition time in s (4D); 0 writes a header without a repetition time.
    """
    image = nifti_bytes(data, affine, tr=tr, slope=slope, describe=describe)
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(image, compresslevel=GZIP_LEVEL, mtime=0))
    return path


def nifti_bytes(
    data: NDArray[Any], affine: Floats, *, tr: float | None = None, slope: float | None = None, describe: str = ""
) -> bytes:
    """Return the bytes of an uncompressed NIfTI-1 image; see :func:`save_nifti`."""
    import nibabel as nib

    header = nib.Nifti1Image(data, affine).header
    header.set_xyzt_units("mm", "sec" if tr is not None else None)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header["descrip"] = describe.encode()[:79]
    header.set_slope_inter(1.0 if slope is None else slope, 0.0)
    if tr is not None:
        header["pixdim"][4] = tr
    # Written by hand: nibabel would choose its own slope, and the integers must go out as given.
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return bytes(header.binaryblock) + b"\0" * 4 + data.astype(header.get_data_dtype()).tobytes(order="F")
