"""A subject's shape: affine and smooth non-linear warp between the template and the subject's T1w world.

``to_template(x) = y + u(y)`` with ``y = A^-1 x``: exact and cheap, since images are drawn by looking up the template
at every subject voxel. The other direction is its inverse, found by fixed-point iteration.

Axis legend: N points; X Y Z a coarse grid over the template; 3 = world mm (RAS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boldmill.demo.geometry import Floats, about_centre, apply, rotation, sample, smooth_noise, world_grid

CENTRE = np.array([0.0, -17.0, 5.0])
"""Centre of the brain in the template, mm."""
GRID_MM = 6.0
SMOOTH_MM = 24.0
MEAN_MM = 3.5
SMALLEST_JACOBIAN = 0.55
BOX_MM = np.array([264.0, 300.0, 324.0])
INVERSE_STEPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """Shape of one subject: ``affine`` 4x4 (template -> subject), ``field`` u on ``grid`` (X, Y, Z, 3), mm."""

    affine: Floats
    field: Floats
    grid: Floats

    def to_template(self, points: Floats) -> Floats:
        """Map subject T1w world points (..., 3) to the template."""
        aligned = apply(np.linalg.inv(self.affine), points)
        return np.asarray(aligned + self.displacement(aligned))

    def to_subject(self, points: Floats) -> Floats:
        """Map template points (..., 3) to the subject's T1w world: the inverse of :meth:`to_template`."""
        aligned = points - self.displacement(points)
        for _ in range(INVERSE_STEPS):
            aligned = points - self.displacement(aligned)
        return apply(self.affine, aligned)

    def displacement(self, aligned: Floats) -> Floats:
        """Return u at affinely aligned points (..., 3), mm."""
        parts = [sample(self.field[..., axis], self.grid, aligned, order=1) for axis in range(3)]
        return np.stack(parts, axis=-1)


def jacobian(field: Floats, step: float) -> Floats:
    """Return the determinant of ``I + du/dx`` of a field (X, Y, Z, 3) on a grid of ``step`` mm, shape (X, Y, Z)."""
    gradient = np.stack(
        [np.stack([np.gradient(field[..., i], step, axis=j) for j in range(3)], axis=-1) for i in range(3)], axis=-2
    )
    return np.asarray(np.linalg.det(np.eye(3) + gradient))


def draw_affine(draw: np.random.Generator) -> Floats:
    """Return a random affine: rotations SD 3 degrees (at most 6), scales .93-1.07, small shears, shifts SD 4 mm."""
    angles = np.deg2rad(np.clip(3.0 * draw.standard_normal(3), -6, 6))
    size = draw.uniform(0.95, 1.05)
    stretch = np.diag(np.clip(size * draw.uniform(0.98, 1.02, 3), 0.93, 1.07))
    shear = np.eye(3) + np.triu(draw.uniform(-0.03, 0.03, (3, 3)), 1)
    shift = np.clip(4.0 * draw.standard_normal(3), -8, 8)
    return about_centre(rotation(angles) @ shear @ stretch, CENTRE, shift)


def draw_warp(draw: np.random.Generator, brain: Floats, *, smooth_mm: float = SMOOTH_MM) -> Warp:
    """Return a random subject shape.

    The field is smooth noise with a mean length of ``MEAN_MM`` over the brain, made smaller where that would bring
    the Jacobian below ``SMALLEST_JACOBIAN``; it fades to zero at the border of the grid.

    Parameters
    ----------
    brain : array (N, 3)
        Template points inside the brain, mm.
    smooth_mm : float
        Gaussian sigma of the field, mm; smaller is harder to register.
    """
    affine = draw_affine(draw)
    count = np.round(BOX_MM / GRID_MM).astype(int) + 1
    shape = (int(count[0]), int(count[1]), int(count[2]))
    grid = np.diag([GRID_MM, GRID_MM, GRID_MM, 1.0])
    grid[:3, 3] = np.array([0.0, -10.0, -14.0]) - BOX_MM / 2
    points = world_grid(grid, shape)
    field = np.stack([smooth_noise(draw, shape, grid, points, smooth_mm) for _ in range(3)], axis=-1)
    fade: Any = np.ones(shape)
    for axis, n in enumerate(shape):
        edge = np.minimum(np.arange(n), np.arange(n)[::-1]) * GRID_MM
        fade = fade * np.clip(edge / 30.0, 0, 1).reshape([-1 if i == axis else 1 for i in range(3)])
    field = field * fade[..., None]
    inside = np.stack([sample(field[..., axis], grid, brain) for axis in range(3)], axis=-1)
    field *= MEAN_MM / np.linalg.norm(inside, axis=-1).mean()
    while jacobian(field, GRID_MM).min() < SMALLEST_JACOBIAN:
        field *= 0.95
    return Warp(affine=affine, field=field.astype(np.float32), grid=grid)
