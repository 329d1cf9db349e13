"""A small analytic head for the BOLD tests: any grid, any rigid position, known boundaries.

Axes: X Y Z voxels, T time; world in RAS mm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from boldmill.preprocess.images import Grid, Volume
from boldmill.preprocess.motion import matrix_of, rotation
from boldmill.preprocess.transforms import apply_affine

CENTRE = np.array([3.0, -14.0, 9.0])


def oblique_las(shape: tuple[int, int, int] = (34, 40, 32), zoom: float = 5.0) -> Grid:
    """A LAS grid turned by 8, -5 and 11 degrees about the head."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(np.radians([8.0, -5.0, 11.0])) @ np.diag([-zoom, zoom, zoom])
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def ras(zoom: float, half: tuple[float, float, float] = (80, 96, 76)) -> Grid:
    """An axis-aligned RAS grid around the head."""
    count = [int(2 * h / zoom) + 1 for h in half]
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = CENTRE - np.array(half)
    return Grid((count[0], count[1], count[2]), affine)


def radius(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the surface of white matter and of the brain (mm, negative inside), folded and not symmetric."""
    p = points - CENTRE
    scaled = p / np.array([58.0, 76.0, 54.0])
    r = np.linalg.norm(scaled, axis=1)
    angle, height = np.arctan2(p[:, 1], p[:, 0]), scaled[:, 2] / np.maximum(r, 1e-6)
    folds = (
        0.05 * np.sin(5 * angle + 1.0) + 0.07 * np.cos(3 * angle - 4 * height) + 0.06 * np.sin(9 * height + 2 * angle)
    )
    return 60.0 * (r - 0.68 - folds), 60.0 * (r - 1.0 + 0.02 * np.sin(2 * angle) - 0.04 * (p[:, 1] > 0) * height)


def soft(distance: np.ndarray, width: float = 1.5) -> np.ndarray:
    """1 inside, 0 outside, smooth over ``width`` mm."""
    return 1.0 / (1.0 + np.exp(np.clip(distance / width, -40, 40)))


def tissues(points: np.ndarray) -> dict[str, np.ndarray]:
    """White matter, grey matter, CSF (two ventricles) and brain at world points."""
    white, brain = (soft(d) for d in radius(points))
    p = points - CENTRE
    left, right = (np.linalg.norm((p - [x, 4, 6]) / [9, 24, 9], axis=1) for x in (-13, 13))
    csf = soft(12.0 * (np.minimum(left, right) - 1.0), 1.0)
    return {"csf": csf, "wm": white * (1 - csf), "gm": np.clip(brain - white, 0, 1), "brain": brain}


def t1w(points: np.ndarray) -> np.ndarray:
    """T1w contrast: white matter brightest."""
    t = tissues(points)
    return np.asarray(1000 * t["wm"] + 650 * t["gm"] + 200 * t["csf"])


def bold(points: np.ndarray) -> np.ndarray:
    """T2* contrast: CSF and grey matter brighter than white matter."""
    t = tissues(points)
    return np.asarray(800 * t["wm"] + 920 * t["gm"] + 1300 * t["csf"])


def draw(grid: Grid, image: Callable[[np.ndarray], np.ndarray], matrix: np.ndarray | None = None) -> Volume:
    """Draw an image whose tissue at world ``x`` lies at ``matrix x``."""
    points = grid.points()
    if matrix is not None:
        points = apply_affine(np.linalg.inv(matrix), points)
    return Volume(image(points).reshape(grid.shape).astype(np.float32), grid.affine)


def movements(count: int, *, size: float = 0.8, seed: int = 3) -> np.ndarray:
    """Rigid positions (T, 4, 4) about the head: ``size`` mm and about as much rotation; the first is identity."""
    rng = np.random.default_rng(seed)
    parameters = np.concatenate([rng.normal(0, size, (count, 3)), rng.normal(0, size / 60, (count, 3))], axis=1)
    parameters[0] = 0
    return np.stack([matrix_of(row, CENTRE) for row in parameters])


def run(grid: Grid, positions: np.ndarray, *, noise: float = 8.0, seed: int = 1) -> np.ndarray:
    """A BOLD series (X, Y, Z, T) at rigid positions."""
    rng = np.random.default_rng(seed)
    volumes = [draw(grid, bold, matrix).data for matrix in positions]
    series = np.stack(volumes, axis=-1)
    return np.asfortranarray(series + rng.normal(0, noise, series.shape), dtype=np.float32)
