"""Affine registration: Mattes mutual information (SimpleITK) from several starts, the best one refined.

The template is the fixed image: neck and table lie outside its grid and never enter the metric. A matrix maps template
world to subject world (RAS, mm), as displacement fields do. Axes: X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boldmill.preprocess.foreground import block_mean
from boldmill.preprocess.images import RAS_TO_LPS, Array, Float, Volume, sitk, to_sitk

BINS = 32
SAMPLED = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class AffineResult:
    """``matrix`` maps template to subject; ``metric`` minus the mutual information, ``starts`` that of each start."""

    matrix: Float
    metric: float
    starts: tuple[float, ...]


def centre_of_mass(volume: Volume) -> Float:
    """World centre of mass of the non-negative intensities, mm, (3,)."""
    weight = np.clip(volume.data, 0, None).astype(np.float64)
    total = weight.sum()
    index = [float((weight.sum(axis=tuple(a for a in range(3) if a != d)) * np.arange(n)).sum() / total)
             for d, n in enumerate(weight.shape)]  # fmt: skip
    return np.asarray(volume.affine[:3, :3] @ index + volume.affine[:3, 3])


def grid_centre(volume: Volume) -> Float:
    """World centre of the field of view, mm, (3,)."""
    return np.asarray(volume.affine[:3, :3] @ ((np.array(volume.data.shape) - 1) / 2) + volume.affine[:3, 3])


def start_matrices(fixed: Volume, moving: Volume, pitches: Sequence[float]) -> list[Float]:
    """Return rigid starts: centres of mass, and centres of the grids, each with every pitch (degrees)."""
    starts = []
    for a, b in ((centre_of_mass(fixed), centre_of_mass(moving)), (grid_centre(fixed), grid_centre(moving))):
        for pitch in pitches:
            c, s = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
            matrix = np.eye(4)
            matrix[:3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]
            matrix[:3, 3] = b - matrix[:3, :3] @ a
            starts.append(matrix)
    return starts


def to_transform(matrix: Float, centre: Float) -> Any:
    """Return the SimpleITK affine (LPS, about ``centre`` in RAS) of a RAS matrix."""
    itk = sitk()
    lps = RAS_TO_LPS @ matrix @ RAS_TO_LPS
    about = RAS_TO_LPS[:3, :3] @ centre
    transform = itk.AffineTransform(3)
    transform.SetCenter([float(v) for v in about])
    transform.SetMatrix([float(v) for v in lps[:3, :3].ravel()])
    transform.SetTranslation([float(v) for v in lps[:3, :3] @ about + lps[:3, 3] - about])
    return transform


def to_matrix(transform: Any) -> Float:
    """Return the RAS matrix of a SimpleITK affine or rigid transform."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    about = np.array(transform.GetCenter())
    matrix[:3, 3] = np.array(transform.GetTranslation()) + about - matrix[:3, :3] @ about
    return np.asarray(RAS_TO_LPS @ matrix @ RAS_TO_LPS)


def refine(
    fixed: Volume,
    moving: Volume,
    start: Float,
    *,
    mask: Array | None = None,
    shrink: Sequence[int] = (2, 1),
    sigmas: Sequence[float] = (4.0, 2.0),
    iterations: int = 200,
    sampled: float = SAMPLED,
) -> tuple[Float, float]:
    """Improve one affine by regular-step descent on Mattes mutual information (32 bins, regular sampling).

    Parameters
    ----------
    fixed, moving : Volume
        Template and subject.
    start : array (4, 4)
        Template world to subject world, RAS.
    mask : array, optional
        Voxels of ``fixed`` that count.
    shrink, sigmas : sequences
        Shrink factor and Gaussian (mm) of each level, coarse to fine.
    iterations : int
        Most steps per level.
    sampled : float
        Share of the fixed voxels used.

    Returns
    -------
    matrix : array (4, 4)
    metric : float
        Minus the mutual information; lower is better.
    """
    itk = sitk()
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(sampled, 1)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-4, numberOfIterations=iterations, relaxationFactor=0.8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([int(s) for s in shrink])
    method.SetSmoothingSigmasPerLevel([float(s) for s in sigmas])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    if mask is not None:
        where = to_sitk(np.asarray(mask, dtype=np.float32), fixed.affine)
        method.SetMetricFixedMask(itk.Cast(where > 0.5, itk.sitkUInt8))
    transform = to_transform(start, centre_of_mass(fixed))
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(to_sitk(fixed.data, fixed.affine), to_sitk(moving.data, moving.affine))
    return to_matrix(transform), float(method.GetMetricValue())


def register_affine(
    fixed: Volume,
    moving: Volume,
    *,
    pitches: Sequence[float] = (-20.0, -10.0, 0.0, 10.0, 20.0),
    mask: Array | None = None,
    coarse: float = 4.0,
    fine: float = 2.0,
) -> AffineResult:
    """Register from all starts on a coarse grid, keep the best metric, refine it on a fine grid.

    A wrong start ends 6-19 mm off and always has the worse metric (measured on two real heads), so the choice by the
    metric is safe; it is what makes wrong headers survivable.

    Parameters
    ----------
    fixed, moving : Volume
        Template and subject images (both with, or both without skull).
    pitches : sequence of float
        Pitch of the starts, degrees.
    mask : array, optional
        Voxels of ``fixed`` that count in the refinement.
    coarse, fine : float
        Voxel sizes, mm.
    """
    small_fixed, small_moving = block_mean(fixed, coarse), block_mean(moving, coarse)
    tried = [
        refine(small_fixed, small_moving, start, shrink=(1,), sigmas=(4.0,), iterations=60)
        for start in start_matrices(small_fixed, small_moving, pitches)
    ]
    best = min(range(len(tried)), key=lambda i: tried[i][1])
    matrix, metric = refine(fixed, block_mean(moving, fine), tried[best][0], mask=mask)
    return AffineResult(matrix, metric, tuple(value for _, value in tried))
