"""Transforms between worlds (RAS millimetres): 4x4 affines and dense displacement fields.

A field maps template to subject: ``subject = x + u(x)`` for a template world point ``x``, affine included; it is
one float32 NIfTI (X, Y, Z, C=3) on a template grid, ``u`` in mm. Resampling a subject's image to the template reads
it at these points, hence its BIDS name ``from-T1w_to-<space>_mode-image_xfm``.

Axes: N points, X Y Z voxels, C = 3 components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from boldmill.atomic import write_text
from boldmill.errors import DataFault
from boldmill.preprocess.images import Array, Float, Grid, Volume, read_volume, write_volume

BLOCK = 262_144
"""Points mapped at once: bounds the memory of dense mappings."""


def apply_affine(matrix: Float, xyz: Array) -> Float:
    """Map points (N, 3) by a 4x4 matrix."""
    return np.asarray(np.asarray(xyz, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3])


def write_affine(path: str | Path, matrix: Float) -> Path:
    """Write a 4x4 world (RAS, mm) matrix as four lines of text that read back exactly."""
    return write_text(path, "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in np.asarray(matrix)))


def read_affine(path: str | Path) -> Float:
    """Read a matrix written by :func:`write_affine`."""
    matrix = np.loadtxt(path, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise DataFault("not an affine", path, f"its shape is {matrix.shape}", "give four lines of four numbers")
    return np.asarray(matrix)


def read_field(path: str | Path) -> Volume:
    """Read a displacement field (X, Y, Z, 3)."""
    field = read_volume(path, ndim=4, what="displacement field")
    if field.data.shape[3] != 3:
        why = f"it has {field.data.shape[3]} components"
        raise DataFault("not a displacement field", path, why, "give a 4D file with three components")
    return field


def write_field(path: str | Path, field: Volume, *, template: bool = True) -> Path:
    """Write a displacement field, rounded to 1/1024 mm; ``template`` says whether its grid lies in template space."""
    return write_volume(path, np.rint(field.data * 1024) / 1024, field.affine, template=template)


def map_points(field: Volume, xyz: Array) -> Float:
    """Map world points by a displacement field (linear interpolation; the nearest edge value outside the grid).

    Parameters
    ----------
    field : Volume (X, Y, Z, 3)
        Displacements, mm.
    xyz : array (N, 3)
        Points, mm, RAS.

    Returns
    -------
    array (N, 3)
        ``xyz + u(xyz)``.
    """
    from scipy.ndimage import map_coordinates

    xyz = np.asarray(xyz, dtype=np.float64)
    out = np.empty_like(xyz)
    inverse = np.asarray(np.linalg.inv(field.affine), dtype=np.float64)
    for start in range(0, len(xyz), BLOCK):
        part = xyz[start : start + BLOCK]
        index = apply_affine(inverse, part).T
        for axis in range(3):
            shift = map_coordinates(field.data[..., axis], index, order=1, mode="nearest", output=np.float32)
            out[start : start + BLOCK, axis] = part[:, axis] + shift
    return out


def dense_field(mapping: Callable[[Float], Float], grid: Grid) -> Volume:
    """Return the displacement field (X, Y, Z, 3) of a point mapping on a grid."""
    shift = np.empty((*grid.shape, 3), dtype=np.float32)
    for low, high, points in _slabs(grid):
        shift[low:high] = (mapping(points) - points).reshape(high - low, *grid.shape[1:], 3)
    return Volume(shift, grid.affine)


def _slabs(grid: Grid) -> Iterator[tuple[int, int, Float]]:
    """Yield first and last X index and the world points of slabs of a grid: bounds the memory of dense mappings."""
    thick = max(1, BLOCK // (grid.shape[1] * grid.shape[2]))
    for low in range(0, grid.shape[0], thick):
        high = min(low + thick, grid.shape[0])
        affine = grid.affine.copy()
        affine[:3, 3] = grid.affine[:3, :3] @ [low, 0, 0] + grid.affine[:3, 3]
        yield low, high, Grid((high - low, grid.shape[1], grid.shape[2]), affine).points()


def spline(volume: Volume, order: int) -> Array:
    """Return the float32 coefficients that :func:`scipy.ndimage.map_coordinates` reads without a prefilter."""
    from scipy.ndimage import spline_filter

    data = np.asarray(volume.data, dtype=np.float32)
    return np.asarray(spline_filter(data, order=order, mode="mirror", output=np.float32)) if order > 1 else data


def sample(
    volume: Volume, xyz: Array, *, order: int = 1, outside: float = 0.0, coefficients: Array | None = None
) -> Array:
    """Read a 3D volume at world points (N, 3) by spline interpolation; float32 (N,).

    Points more than half a voxel beyond the outermost voxel centres read ``outside``. ``coefficients`` (of
    :func:`spline`) spare the prefilter when a volume is sampled in parts.
    """
    from scipy.ndimage import map_coordinates

    data = spline(volume, order) if coefficients is None else coefficients
    inverse = np.asarray(np.linalg.inv(volume.affine), dtype=np.float64)
    out = np.empty(len(xyz), dtype=np.float32)
    limit = np.array(volume.data.shape)[:, np.newaxis] - 0.5
    mode = "mirror" if order > 1 else "nearest"
    for start in range(0, len(xyz), BLOCK):
        index = apply_affine(inverse, xyz[start : start + BLOCK]).T
        values = map_coordinates(data, index, order=order, mode=mode, prefilter=False, output=np.float32)
        inside = ((index > -0.5) & (index < limit)).all(axis=0)
        out[start : start + BLOCK] = np.where(inside, values, np.float32(outside))
    return out


def resample(
    volume: Volume, grid: Grid, mapping: Callable[[Float], Float] | None = None, *, order: int = 1, outside: float = 0.0
) -> Volume:
    """Resample a 3D volume onto a grid; ``mapping`` takes grid world points to the volume's world (identity: None)."""
    coefficients = spline(volume, order)
    out = np.empty(grid.shape, dtype=np.float32)
    for low, high, points in _slabs(grid):
        where = points if mapping is None else mapping(points)
        values = sample(volume, where, order=order, outside=outside, coefficients=coefficients)
        out[low:high] = values.reshape(high - low, *grid.shape[1:])
    return Volume(out, grid.affine)


def jacobian(field: Volume) -> Array:
    """Return the determinant (X, Y, Z) of the derivative of ``x + u(x)`` in world coordinates; float32.

    Below 0 the mapping folds; 2 means that a template voxel covers twice its volume in the subject.
    """
    inverse = np.linalg.inv(field.affine[:3, :3])
    voxel = np.empty((*field.data.shape, 3))  # (X, Y, Z, component, voxel axis)
    for component in range(3):
        for axis in range(3):
            voxel[..., component, axis] = np.gradient(field.data[..., component].astype(np.float64), axis=axis)
    return np.asarray(np.linalg.det(np.eye(3) + voxel @ inverse), dtype=np.float32)
