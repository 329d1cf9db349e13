"""The analytic head of the BOLD tests in a known inhomogeneous field: distorted EPIs, phase images of a field map.

Axes: X Y Z voxels; world in RAS mm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from boldmill.preprocess.distortion import Encoding
from boldmill.preprocess.images import Grid, Volume
from boldmill.preprocess.transforms import apply_affine

from .bold_phantom import CENTRE, bold, radius, tissues

SINUS = CENTRE + np.array([0.0, 52.0, -22.0])
EARS = CENTRE + np.array([[-42.0, -8.0, -20.0], [42.0, -8.0, -20.0]])


def hertz(points: np.ndarray) -> np.ndarray:
    """A field like that above the frontal sinus and the ear canals, and a slow trend."""
    out = 110 * np.exp(-((np.linalg.norm(points - SINUS, axis=1) / 26) ** 2))
    for ear in EARS:
        out -= 60 * np.exp(-((np.linalg.norm(points - ear, axis=1) / 18) ** 2))
    return np.asarray(out + 10 * np.sin((points - CENTRE)[:, 1] / 35))


def shift(grid: Grid, encoding: Encoding) -> np.ndarray:
    """True shift on a grid, voxels."""
    return (encoding.polarity * encoding.readout * hertz(grid.points())).reshape(grid.shape)


def epi(
    grid: Grid,
    encoding: Encoding,
    *,
    noise: float = 8.0,
    seed: int = 0,
    matrix: np.ndarray | None = None,
    image: Callable[[np.ndarray], np.ndarray] = bold,
) -> Volume:
    """A distorted EPI: what lies at voxel ``y`` appears at ``y + shift(y)``, spread over ``1 + d shift`` voxels."""
    index = np.indices(grid.shape).reshape(3, -1).T.astype(np.float64)
    back = np.eye(4) if matrix is None else np.linalg.inv(matrix)

    def at(y: np.ndarray) -> np.ndarray:
        place = index.copy()
        place[:, encoding.axis] = y
        return apply_affine(back, apply_affine(grid.affine, place))

    def moved(y: np.ndarray) -> np.ndarray:
        return np.asarray(encoding.polarity * encoding.readout * hertz(at(y)))

    seen = index[:, encoding.axis]
    source, step = seen.copy(), 1e-3

    def slope_at(y: np.ndarray) -> np.ndarray:
        return (moved(y + step) - moved(y - step)) / (2 * step)

    for _ in range(8):  # Newton: the field never folds
        source -= (source + moved(source) - seen) / (1 + slope_at(source))
    slope = slope_at(source)
    data = image(at(source)) / (1 + slope) + np.random.default_rng(seed).normal(0, noise, len(index))
    return Volume(data.reshape(grid.shape).astype(np.float32), grid.affine)


def gradient_echo(grid: Grid, delta: float, *, noise: float = 0.03, seed: int = 5) -> tuple[Volume, Volume]:
    """Magnitude with skull, bright scalp and receive field, and the wrapped phase (rad) ``delta`` seconds later."""
    points, rng = grid.points(), np.random.default_rng(seed)
    outside = radius(points)[1]
    brain, scalp = tissues(points)["brain"], (outside > 7) & (outside < 16)
    receive = np.exp(-(points - CENTRE)[:, 1] / 150)
    magnitude = receive * (600 * brain + 1100 * scalp)
    phase = 2 * np.pi * delta * hertz(points) + 2 * np.pi * delta * 35 * scalp  # what is left of fat
    signal = magnitude * np.exp(1j * phase)
    signal = signal + 600 * noise * (rng.normal(size=len(points)) + 1j * rng.normal(size=len(points)))
    shaped = signal.reshape(grid.shape)
    return Volume(np.abs(shaped).astype(np.float32), grid.affine), Volume(np.angle(shaped), grid.affine)


def brain_of(grid: Grid) -> np.ndarray:
    """Voxels well inside the brain."""
    return np.asarray((radius(grid.points())[1] < -1).reshape(grid.shape))
