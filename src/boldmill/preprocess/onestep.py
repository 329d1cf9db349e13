"""One spatial interpolation: raw (slice-timed) volumes read once at points that compose motion, coregistration, warp.

Axes: X Y Z voxels, T time, N points of one set; 4x4 world matrices (RAS mm).

``template point x -> T1w x + u(x) -> BOLD reference C(.) -> volume t W[t](.) -> voxel inv(A)(.)``: the first three are
computed once (``points`` below), the last two are one affine per volume. With a field map, the voxel is then moved
along the phase-encoding axis, and the value is multiplied by how much the voxel was stretched (the Jacobian).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess.images import Grid, Volume
from boldmill.preprocess.motion import Float
from boldmill.preprocess.transforms import apply_affine, map_points, sample

Array = NDArray[Any]
BLOCK = 131_072


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """``series`` (T, N) float32 at a set of points, and ``seen`` (N,): inside the field of view of every volume."""

    series: Array
    seen: Array


@dataclass(frozen=True, slots=True, eq=False)
class Distortion:
    """EPI distortion of a run: ``shift`` (X, Y, Z) in voxels along voxel ``axis``, on the grid of its reference.

    The distorted image is read at ``voxel + shift`` to see what lies at the undistorted voxel.
    """

    shift: Volume
    axis: int

    def at(self, points: Float) -> tuple[Float, Float]:
        """Return shift (N,) in voxels and Jacobian ``1 + d shift / d axis`` (N,) at reference points (N, 3), mm.

        Both are interpolated linearly, the edge value holding outside the grid. A negative Jacobian is a fold, where
        signal is lost: it counts as 0.
        """
        from scipy.ndimage import map_coordinates

        data = np.asarray(self.shift.data, dtype=np.float64)
        index = apply_affine(np.asarray(np.linalg.inv(self.shift.affine)), points).T
        both = (data, np.gradient(data, axis=self.axis))
        shift, slope = (map_coordinates(image, index, order=1, mode="nearest") for image in both)
        return shift, np.maximum(1.0 + slope, 0.0)


def brain_points(grid: Grid, field: Volume, mask: Volume) -> tuple[Array, Float]:
    """Return which voxels of a template grid are brain, and where they lie in the T1w.

    Parameters
    ----------
    grid : Grid
        Output grid in template space.
    field : Volume (X, Y, Z, 3)
        Template-to-T1w displacement.
    mask : Volume (X, Y, Z)
        T1w brain mask.

    Returns
    -------
    inside : bool array (grid.shape)
    points : array (N, 3)
        T1w world points of the voxels inside, in C order.
    """
    points = map_points(field, grid.points())
    inside = sample(mask, points) > 0.5
    return inside.reshape(grid.shape), points[inside]


def resample_series(
    volume: Callable[[int], Array],
    affine: Float,
    matrices: Float,
    sets: Sequence[Float],
    *,
    order: int = 3,
    distortion: Distortion | None = None,
    progress: Callable[[range], Any] = iter,
) -> list[Sampled]:
    """Read every volume at sets of BOLD-reference points, each volume's spline being computed once.

    Parameters
    ----------
    volume : callable
        Returns volume ``t`` (X, Y, Z).
    affine : array (4, 4)
        Voxel to world of the volumes.
    matrices : array (T, 4, 4)
        Motion: reference world to volume world.
    sets : sequence of arrays (N, 3)
        Points in BOLD-reference world.
    order : int
        Spline order; 3 is cubic.
    distortion : Distortion, optional
        Volume ``t`` is read at ``inv(A) W[t] p + shift(p) e`` and multiplied by the Jacobian; ``seen`` follows the
        moved points.
    progress : callable
        Wraps the range of volumes (tqdm).
    """
    from scipy.ndimage import map_coordinates, spline_filter

    inverse = np.linalg.inv(affine)
    count = len(matrices)
    columns = [np.ascontiguousarray(points.T) for points in sets]
    out = [np.empty((count, points.shape[1]), dtype=np.float32) for points in columns]
    seen = [np.ones(points.shape[1], dtype=bool) for points in columns]
    moved = [distortion.at(points) if distortion else None for points in sets]
    for t in progress(range(count)):
        data = np.asarray(volume(t), dtype=np.float32)
        limit = np.array(data.shape)[:, np.newaxis] - 0.5
        spline = spline_filter(data, order=order, mode="mirror", output=np.float32) if order > 1 else data
        chain = inverse @ matrices[t]
        for series, inside, points, warp in zip(out, seen, columns, moved, strict=True):
            for start in range(0, points.shape[1], BLOCK):
                part = slice(start, start + BLOCK)
                index = chain[:3, :3] @ points[:, part] + chain[:3, 3:]
                if distortion and warp:
                    index[distortion.axis] += warp[0][part]
                map_coordinates(spline, index, output=series[t, part], order=order, mode="mirror", prefilter=False)
                inside[part] &= ((index > -0.5) & (index < limit)).all(axis=0)
            if warp:
                series[t] *= warp[1]
    return [Sampled(series, inside) for series, inside in zip(out, seen, strict=True)]
