"""Boundary-based registration: the grey/white contrast of the BOLD reference along the white-matter surface.

Axes: N boundary points; 4x4 world matrices (RAS mm). A coregistration matrix maps T1w world to BOLD world.

Source: Greve & Fischl 2009 (doi 10.1016/j.neuroimage.2009.06.060): cost ``mean(1 + tanh(-0.05 d))`` with
``d = 100 (outside - inside) / mean`` in percent; 1 is chance, below it grey matter is brighter, as in T2*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess.images import Volume, bounding_box, crop_volume, regrid
from boldmill.preprocess.motion import Float, matrix_of
from boldmill.preprocess.transforms import apply_affine, resample, sample
from boldmill.rng import generator

STEP = 2.0
"""Distance from the boundary at which both sides are read, mm."""
BOUND = 12.0
"""Bound of each parameter (mm, degrees): an unbounded search escapes."""
SLOPE = 0.05
POINTS = 40_000
SMOOTH = 1.1
"""Gaussian sigma of the white-matter map, mm: a rough surface raises the cost, at any voxel size, without moving it."""
ACCEPT_COST = 0.9
ACCEPT_SIGN = 0.6
ACCEPT_MOVE = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """Points ``inside`` and ``outside`` the white-matter surface (N, 3), mm, T1w world; ``centre`` (3,)."""

    inside: Float
    outside: Float
    centre: Float

    @property
    def surface(self) -> Float:
        """The points on the surface itself (N, 3)."""
        return (self.inside + self.outside) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """``cost`` (chance 1.0) and ``sign``, the share of points whose outside is brighter."""

    cost: float
    sign: float


def boundary(white: Volume, grey: Volume, *, key: tuple[str | int, ...], points: int = POINTS) -> Boundary:
    """Return points either side of the white-matter surface, where grey matter lies outside it.

    Parameters
    ----------
    white, grey : Volume (X, Y, Z)
        Probability maps on one T1w grid.
    key : tuple
        Key of the random choice of vertices.
    points : int
        Most vertices used.

    Raises
    ------
    DataFault
        The maps show no white-matter surface.
    """
    from scipy.ndimage import gaussian_filter
    from skimage import measure

    surface: Any = measure.marching_cubes

    low, high = bounding_box(white.data > 0.3, 4) if (white.data > 0.3).any() else ((0, 0, 0), (0, 0, 0))
    fix = "look at the tissue segmentation of the T1w"
    if not np.any(high):
        raise DataFault("cannot find the white-matter surface", "T1w", "no voxel is white matter", fix)
    white = crop_volume(white, np.asarray(low), np.asarray(high))
    if float(white.grid.zooms.min()) < 0.95:  # finer grids cost much and move the result by less than 0.1 mm
        white = resample(white, regrid(white.grid, 1.0))
    smooth = gaussian_filter(np.asarray(white.data, dtype=np.float32), SMOOTH / white.grid.zooms)
    if not smooth.min() < 0.5 < smooth.max():
        raise DataFault("cannot find the white-matter surface", "T1w", "its probability never crosses 0.5", fix)
    vertices = surface(smooth, 0.5)[0].astype(np.float64)
    # Vertices come ordered along x: cutting them off in that order would leave out the side of the head.
    chosen = generator("bbr vertices", *key).permutation(len(vertices))[: 3 * points]
    vertices = vertices[chosen]
    slope = np.stack(
        [sample(Volume(g, np.eye(4)), vertices) for g in np.gradient(smooth)], axis=1
    )  # (N, 3) per voxel; the probability falls outwards
    normal = -slope @ np.linalg.inv(white.affine[:3, :3])
    length = np.linalg.norm(normal, axis=1)
    world = apply_affine(white.affine, vertices)
    keep = length > 1e-6
    world, normal = world[keep], normal[keep] / length[keep, None]
    out = world + STEP * normal
    keep = sample(grey, out) > 0.5
    if keep.sum() < 500:
        why = f"only {int(keep.sum())} surface points have grey matter outside"
        raise DataFault("cannot find the white-matter surface", "T1w", why, fix)
    world, normal = world[keep][:points], normal[keep][:points]
    return Boundary(world - STEP * normal, world + STEP * normal, world.mean(axis=0))


def contrast(reference: Volume, edge: Boundary, matrix: Float) -> Contrast:
    """Return the boundary cost of a T1w-to-BOLD matrix; points outside the field of view count as chance."""
    both = sample(reference, apply_affine(matrix, np.concatenate([edge.inside, edge.outside])), outside=np.nan)
    inside, outside = np.split(both.astype(np.float64), 2)
    mean = (inside + outside) / 2.0
    floor = 0.05 * float(np.nanmean(mean)) if np.isfinite(mean).any() else 1.0
    seen = np.isfinite(mean) & (mean > max(floor, 1e-9))
    percent = np.zeros(len(mean))
    percent[seen] = 100.0 * (outside[seen] - inside[seen]) / mean[seen]
    sign = float((percent[seen] > 0).mean()) if seen.any() else 0.0
    return Contrast(cost=float(np.mean(1.0 + np.tanh(-SLOPE * percent))), sign=sign)


def refine(reference: Volume, edge: Boundary, start: Float, *, bound: float = BOUND) -> tuple[Float, Contrast]:
    """Refine a T1w-to-BOLD matrix by bounded Powell search over six rigid parameters.

    Parameters
    ----------
    reference : Volume (X, Y, Z)
        BOLD reference.
    edge : Boundary
        White-matter boundary.
    start : array (4, 4)
        T1w world to BOLD world.
    bound : float
        Bound of each parameter, mm and degrees.

    Returns
    -------
    array (4, 4), Contrast
        The refined matrix and its cost.
    """
    from scipy.optimize import minimize

    def place(values: Float) -> Float:
        parameters = np.concatenate([values[:3], np.radians(values[3:])])
        return start @ matrix_of(parameters, edge.centre)

    def cost(values: Float) -> float:
        return contrast(reference, edge, place(values)).cost

    found = minimize(
        cost,
        np.zeros(6),
        method="Powell",
        bounds=[(-bound, bound)] * 6,
        options={"xtol": 1e-3, "ftol": 1e-6, "maxiter": 20},
    )
    matrix = place(np.asarray(found.x, dtype=np.float64))
    return matrix, contrast(reference, edge, matrix)
