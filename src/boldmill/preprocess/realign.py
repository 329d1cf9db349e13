"""Rigid realignment of a BOLD series: inverse compositional Gauss-Newton with gain and offset, two levels.

Everything is solved in world millimetres, so oblique or flipped grids need no care. Volumes are streamed.

Axes: X Y Z voxels, T time, N points, 4x4 world matrices (RAS mm).

Source: Baker & Matthews 2004 (inverse compositional alignment); the schedule is a measured choice: Gaussian of
max(6 mm, 1.5 voxels) with linear, then max(4 mm, 1 voxel) with cubic interpolation, on about 12,000 points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess.motion import matrix_of

Array = NDArray[Any]
Float = NDArray[np.float64]

RADIUS = 60.0
"""Radius at which a rotation counts as a displacement, mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level: smoothing (FWHM: at least ``fwhm`` mm and ``voxels`` voxels), spline order, stop rule (mm)."""

    fwhm: float
    voxels: float
    order: int
    points: int
    tolerance: float
    iterations: int = 8


COARSE = Level(fwhm=6.0, voxels=1.5, order=1, points=8000, tolerance=0.02)
FINE = Level(fwhm=4.0, voxels=1.0, order=3, points=12000, tolerance=0.003)


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Result: ``matrices`` (T, 4, 4) reference world to volume world, ``gain`` (T,), ``last_step`` (T,) left, mm."""

    matrices: Float
    gain: Float
    last_step: Float

    @property
    def fields(self) -> tuple[Float, Float, Float]:
        """All three, to replace volumes of one result by those of another."""
        return self.matrices, self.gain, self.last_step


def realign(
    volume: Callable[[int], Array],
    n_volumes: int,
    reference: Array,
    affine: Float,
    mask: Array,
    *,
    levels: tuple[Level, ...] = (COARSE, FINE),
    start: Float | None = None,
) -> Motion:
    """Find the rigid motion of every volume against a reference on the same grid.

    Parameters
    ----------
    volume : callable
        Returns volume ``t`` (X, Y, Z), raw.
    n_volumes : int
        Number of volumes T.
    reference : array (X, Y, Z)
        The image the series is aligned to.
    affine : array (4, 4)
        Voxel to world; any orientation.
    mask : bool array (X, Y, Z)
        Where the reference is compared (brain).
    levels : tuple of Level
        From coarse to fine.
    start : array (T, 4, 4), optional
        First guess; identity by default.

    Raises
    ------
    DataFault
        The mask holds too few voxels to align anything.
    """
    matrices = np.tile(np.eye(4), (n_volumes, 1, 1)) if start is None else start.copy()
    gain, last = np.ones(n_volumes), np.zeros(n_volumes)
    for level in levels:
        solver = _Solver(reference, affine, mask, level)
        for t in range(n_volumes):
            matrices[t], gain[t], last[t] = solver.solve(volume(t), matrices[t])
    return Motion(matrices, gain, last)


class _Solver:
    """One level with its points, their gradients and the pseudo-inverse they share for every volume."""

    def __init__(self, reference: Array, affine: Float, mask: Array, level: Level) -> None:
        self.level, self.inverse = level, np.linalg.inv(affine)
        zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        self.sigma = np.maximum(level.fwhm, level.voxels * zooms) / zooms / np.sqrt(8.0 * np.log(2.0))
        smooth = self._smooth(reference)
        gradient = np.stack([np.gradient(smooth.astype(np.float64), axis=axis) for axis in range(3)], axis=-1)
        where = np.argwhere(_interior(mask))
        if len(where) < 200:
            why = f"only {len(where)} voxels look like brain"
            raise DataFault("cannot realign", "BOLD", why, "check that the image shows a head, or exclude the scan")
        where = where[:: max(1, len(where) // level.points)]
        index = tuple(where.T)
        self.points = where @ affine[:3, :3].T + affine[:3, 3]
        self.centre = self.points.mean(axis=0)
        slope = gradient[index] @ self.inverse[:3, :3]  # d image / d world
        arm = self.points - self.centre
        values = smooth[index].astype(np.float64)
        self.scale = float(values.std()) or 1.0
        columns = [slope, np.cross(arm, slope), values[:, None], np.ones((len(values), 1))]
        self.solve_rows = np.linalg.pinv(np.concatenate(columns, axis=1))

    def _smooth(self, data: Array) -> Array:
        from scipy.ndimage import gaussian_filter

        return np.asarray(gaussian_filter(np.asarray(data, dtype=np.float32), self.sigma, mode="nearest", truncate=3.0))

    def solve(self, data: Array, matrix: Float) -> tuple[Float, float, float]:
        """Refine one matrix; return it with the gain and the step that would come next (mm)."""
        from scipy.ndimage import map_coordinates, spline_filter

        moving = self._smooth(data)
        if self.level.order > 1:
            moving = spline_filter(moving, order=self.level.order, mode="mirror", output=np.float32)
        mode = "mirror" if self.level.order > 1 else "nearest"
        gain, size, before = 1.0, np.inf, 0.0
        for _ in range(self.level.iterations):
            chain = self.inverse @ matrix
            index = chain[:3, :3] @ self.points.T + chain[:3, 3:]
            values = map_coordinates(moving, index, order=self.level.order, mode=mode, prefilter=False)
            solution = self.solve_rows @ values
            gain = float(solution[6])
            if not np.isfinite(gain) or abs(gain) < 1e-3:  # an empty volume: there is nothing to align
                return matrix, gain, np.inf
            step = np.clip(solution[:6] / gain, -20.0, 20.0)
            # volume(W p) = gain * reference(D p) with D the step, so the aligned matrix is W inv(D).
            matrix = matrix @ np.linalg.inv(matrix_of(step, self.centre))
            length = float(np.linalg.norm(step[:3]) + RADIUS * np.linalg.norm(step[3:]))
            # Steps shrink by a nearly constant factor: the next one is known before it is taken.
            size, before = length * (min(1.0, length / before) if before else 1.0), length
            if size < self.level.tolerance:
                break
        return matrix, gain, size


def _interior(mask: Array, margin: int = 2) -> Array:
    """Return the mask without the outermost slices, whose neighbours may leave the field of view."""
    inner = np.zeros(mask.shape, dtype=bool)
    cut = tuple(slice(margin, n - margin) if n > 6 * margin else slice(None) for n in mask.shape)
    inner[cut] = np.asarray(mask, dtype=bool)[cut]
    return inner
