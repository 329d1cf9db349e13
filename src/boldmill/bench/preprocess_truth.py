"""Errors of preprocessing against the phantom's truth: motion, coregistration, normalisation, brain mask, slice timing.

Axes: N points inside the brain, T volumes; 4x4 world matrices (RAS mm).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.bench.phantom import Shape
from boldmill.bench.phantom_bold import RunTruth
from boldmill.preprocess.images import Volume
from boldmill.preprocess.motion import displacement
from boldmill.preprocess.transforms import apply_affine, sample
from boldmill.rng import generator

Float = NDArray[np.float64]

EDGE = 3
"""Volumes at each end that do not count as interior."""


def rest_points(shape: Shape, truth: RunTruth) -> Float:
    """Return the brain points (N, 3) in BOLD world with the head at rest, mm."""
    return apply_affine(truth.pose, _subject(shape))


def _subject(shape: Shape) -> Float:
    return np.asarray(shape.warp.to_subject(shape.brain), dtype=np.float64)


def reference_volume(matrices: Float, points: Float) -> int:
    """Return the volume that fixes the reference's position: the one whose matrix is nearest the identity."""
    return int(np.argmin(displacement(matrices, points)))


def motion_errors(found: Float, truth: RunTruth, points: Float, reference: int) -> Float:
    """Return the mean error (T,) of motion matrices over the brain, mm.

    Parameters
    ----------
    found : array (T, 4, 4)
        Reference world to volume world.
    truth : RunTruth
        What the run was drawn from; volume ``reference`` is the reference.
    points : array (N, 3)
        Brain in BOLD world at rest, mm.
    reference : int
        Volume that fixes the reference's position.
    """
    start = truth.motion[reference]
    expected = truth.motion @ np.linalg.inv(start)
    return displacement(np.linalg.inv(expected) @ found, apply_affine(np.asarray(start), points))


def coregistration_error(found: Float, truth: RunTruth, shape: Shape, reference: int) -> float:
    """Return the mean error over the brain of a T1w-to-BOLD-reference matrix, mm."""
    expected = truth.motion[reference] @ truth.pose
    return float(displacement((np.linalg.inv(expected) @ found)[None], _subject(shape))[0])


def normalisation_errors(to_subject: Callable[[Float], Any], shape: Shape) -> Float:
    """Return the error (N,) of a template-to-T1w mapping at the brain points, mm, in T1w world."""
    return np.asarray(np.linalg.norm(to_subject(shape.brain) - _subject(shape), axis=1))


def dice(found: Volume, truth: Volume) -> float:
    """Return the Dice overlap of two masks, read at the voxels of the truth."""
    grid = truth.grid
    own = sample(found, grid.points(), order=1) > 0.5
    true = truth.data.ravel() > 0.5
    return float(2 * (own & true).sum() / (own.sum() + true.sum()))


def band_limited(
    tr: float, count: int, times: Float, *, band: tuple[float, float] = (0.01, 0.1), realisations: int = 20
) -> tuple[Float, Callable[[float], Float]]:
    """Return sampled series (R, S, T) of slices at ``times`` (S,), s, and the same signals at a common delay (R, T).

    Each realisation is a sum of 60 random sinusoids inside ``band`` (Hz) with unit SD.
    """
    draw = generator("slice timing", realisations)
    hertz, phase = (
        draw.uniform(*band, (realisations, 60)),
        draw.uniform(0, 2 * np.pi, (realisations, 60)),
    )

    def at(when: Float) -> Float:
        angle = 2 * np.pi * hertz[:, :, None] * when + phase[:, :, None]
        return np.asarray(np.sin(angle).sum(axis=1) / np.sqrt(30.0))

    start = np.arange(count) * tr
    series = np.stack([at(start + time) for time in times], axis=1)
    return series, lambda delay: at(start + delay)


def timing_error(corrected: Float, truth: Float) -> tuple[float, float]:
    """Return the RMS error in percent of the SD, (all volumes, interior), of series (R, S, T) against (R, T)."""
    relative = (corrected - truth[:, None, :]) / truth.std(axis=-1)[:, None, None]
    inner = relative[..., EDGE:-EDGE]
    return 100 * float(np.sqrt((relative**2).mean())), 100 * float(np.sqrt((inner**2).mean()))
