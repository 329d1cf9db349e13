"""EPI distortion from two images of opposite phase encoding: the shift that makes them one image.

Both images show the same head, pushed to opposite sides. With ``b`` the shift of the first in voxels, and ``-r b``
that of the second (``r``: ratio of readout times), undistortion makes them equal::

    I1(y + b) (1 + d b / d y) = g I2(y - r b) (1 - r d b / d y)

``b`` is found by Gauss-Newton with a smoothness penalty, coarse to fine; each step is a linear system that conjugate
gradients solve on whole arrays. Source of the model: Chang & Fitzpatrick 1992 (doi 10.1109/42.158935), Andersson et al.
2003 (doi 10.1016/S1053-8119(03)00336-7), who solve it on splines.

Axes: X Y Z voxels; inside this module the phase-encoding axis is the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from boldmill.preprocess.images import Array, Float


@dataclass(frozen=True, slots=True)
class Level:
    """``fwhm`` (mm) of the smoothing of both images, ``penalty`` on the field's roughness, Gauss-Newton ``steps``."""

    fwhm: float
    penalty: float
    steps: int


LEVELS = (Level(16.0, 0.8, 8), Level(9.0, 0.2, 8), Level(5.0, 0.06, 6), Level(3.0, 0.02, 6))
CG_STEPS = 40
CG_TOLERANCE = 1e-2
LARGEST_STEP = 2.0
"""Bound of one step of the field, voxels."""
LARGEST_SLOPE = 0.9
"""Bound of d shift / d voxel that the images are stretched by: 1 is a fold."""


def estimate(
    first: Array, second: Array, axis: int, zooms: Float, *, ratio: float = 1.0, levels: tuple[Level, ...] = LEVELS
) -> Array:
    """Return the shift (X, Y, Z) of the first image, voxels along ``axis``.

    Parameters
    ----------
    first, second : array (X, Y, Z)
        Images of opposite polarity on one grid, aligned.
    axis : int
        Phase-encoding axis.
    zooms : array (3,)
        Voxel sizes, mm.
    ratio : float
        Readout time of the second over that of the first.
    levels : tuple of Level
        From coarse to fine.
    """
    from scipy.ndimage import gaussian_filter

    pair = [np.moveaxis(np.asarray(image, dtype=np.float32), axis, -1) for image in (first, second)]
    size = np.array([*np.delete(zooms, axis), zooms[axis]], dtype=np.float64)
    scale = [float(np.mean(image[image > image.mean()])) or 1.0 for image in pair]
    pair = [image / np.float32(s) for image, s in zip(pair, scale, strict=True)]
    shift = np.zeros(pair[0].shape)
    for level in levels:
        sigma = np.maximum(level.fwhm / size, 1.0) / np.sqrt(8 * np.log(2))
        smooth = [gaussian_filter(image, sigma, mode="nearest").astype(np.float64) for image in pair]
        shift = _solve(smooth[0], smooth[1], shift, ratio, (size[2] / size) ** 2, level)
    return np.ascontiguousarray(np.moveaxis(shift, -1, axis)).astype(np.float32)


def _solve(one: Float, two: Float, shift: Float, ratio: float, weights: Float, level: Level) -> Float:
    """Improve the shift at one level."""
    slope_one, slope_two = np.gradient(one, axis=-1), np.gradient(two, axis=-1)
    rough = _laplacian(weights)
    for _ in range(level.steps):
        stretch = np.clip(_slope(shift), -LARGEST_SLOPE, LARGEST_SLOPE)
        a, da = _shifted(shift, one, slope_one)
        b, db = _shifted(-ratio * shift, two, slope_two)
        up, down = a * (1 + stretch), b * (1 - np.clip(ratio * stretch, -LARGEST_SLOPE, LARGEST_SLOPE))
        gain = float((up * down).sum() / max(float((down * down).sum()), 1e-12))
        wrong = up - gain * down
        value = da * (1 + stretch) + gain * ratio * db * (1 - ratio * stretch)  # d wrong / d shift
        tilt = a + gain * ratio * b  # d wrong / d slope of the shift
        step = _descend(value, tilt, wrong, shift, rough, level.penalty)
        step = np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        shift = shift + step
        if float(np.abs(step).max()) < 0.01:
            break
    return shift


def _descend(
    value: Float, tilt: Float, wrong: Float, shift: Float, rough: Callable[[Float], Float], penalty: float
) -> Float:
    """Solve ``(J'J + penalty L) step = -(J' wrong + penalty L shift)`` with ``J = value + tilt d/dy``."""

    def normal(x: Float) -> Float:
        seen = value * x + tilt * _slope(x)
        return np.asarray(value * seen + _slope_t(tilt * seen) + penalty * rough(x))

    diagonal = value**2 + 0.5 * tilt**2 + 6.0 * penalty + 1e-6
    x = np.zeros_like(shift)
    left = -(value * wrong + _slope_t(tilt * wrong) + penalty * rough(shift))
    target = CG_TOLERANCE * float(np.linalg.norm(left))
    z = left / diagonal
    p, rz = z.copy(), float((left * z).sum())
    for _ in range(CG_STEPS):
        ap = normal(p)
        alpha = rz / max(float((p * ap).sum()), 1e-30)
        x += alpha * p
        left -= alpha * ap
        if float(np.linalg.norm(left)) < target:
            break
        z = left / diagonal
        new = float((left * z).sum())
        p, rz = z + (new / max(rz, 1e-30)) * p, new
    return x


def _slope(x: Float) -> Float:
    """Central difference along the last axis; zero at both ends."""
    out = np.zeros_like(x)
    out[..., 1:-1] = (x[..., 2:] - x[..., :-2]) / 2
    return out


def _slope_t(x: Float) -> Float:
    """Transpose of :func:`_slope`."""
    out = np.zeros_like(x)
    out[..., 2:] += x[..., 1:-1] / 2
    out[..., :-2] -= x[..., 1:-1] / 2
    return out


def _laplacian(weights: Float) -> Callable[[Float], Float]:
    """Return ``x -> -laplacian(x)`` with free ends, differences weighted per axis."""

    def apply(x: Float) -> Float:
        out = np.zeros_like(x)
        for axis, weight in enumerate(weights):
            step = weight * np.diff(x, axis=axis)
            low = [slice(None)] * 3
            high = [slice(None)] * 3
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            out[tuple(low)] -= step
            out[tuple(high)] += step
        return out

    return apply


def _shifted(shift: Float, *images: Float) -> list[Float]:
    """Read images at ``y + shift`` along the last axis (linear; the edge value outside)."""
    n = shift.shape[-1]
    at = np.clip(np.arange(n) + shift, 0, n - 1.000001)
    low = at.astype(np.intp)
    part = at - low
    return [
        np.take_along_axis(image, low, -1) * (1 - part) + np.take_along_axis(image, low + 1, -1) * part
        for image in images
    ]
