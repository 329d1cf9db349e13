"""Rigid registration of two images of one head whose headers are nearly right: mutual information from the header.

Axes: X Y Z voxels; 4x4 world matrices (RAS mm).
"""

from __future__ import annotations

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess.affine import to_matrix
from boldmill.preprocess.images import RAS_TO_LPS, Array, Float, Volume, sitk, to_sitk
from boldmill.preprocess.n4 import one_thread
from boldmill.preprocess.transforms import apply_affine

BINS = 32
SHRINK, SIGMAS = (2, 1), (4.0, 2.0)


def rigid(fixed: Volume, moving: Volume, mask: Array, *, threads: int = 1) -> Float:
    """Return the matrix from ``fixed`` world to ``moving`` world (6 degrees of freedom).

    Parameters
    ----------
    fixed, moving : Volume (X, Y, Z)
        Images of one head, in any contrast.
    mask : array (X, Y, Z)
        Voxels of ``fixed`` that count.
    threads : int
        SimpleITK threads; 1 makes reruns identical.

    Raises
    ------
    DataFault
        One image is empty, or they do not overlap.
    """
    itk = sitk()
    one_thread(threads)
    inside = np.asarray(mask) > 0
    centre = apply_affine(fixed.affine, np.argwhere(inside).mean(axis=0)[np.newaxis])[0]
    transform = itk.Euler3DTransform()
    transform.SetCenter([float(v) for v in RAS_TO_LPS[:3, :3] @ centre])
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(itk.Cast(to_sitk(inside.astype(np.float32), fixed.affine) > 0.5, itk.sitkUInt8))
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 100, 0.5, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK)
    method.SetSmoothingSigmasPerLevel(SIGMAS)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetNumberOfThreads(threads)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(to_sitk(fixed.data, fixed.affine), to_sitk(moving.data, moving.affine))
    except RuntimeError as error:  # an empty image, or no overlap
        why = str(error).strip().splitlines()[-1]
        raise DataFault("cannot register", "field map", why, "look at the images of the field map") from error
    return to_matrix(transform)


def mean_displacement(matrix: Float, mask: Array, affine: Float) -> float:
    """Return how far (mm) a matrix moves the voxels of a mask on average."""
    points = apply_affine(affine, np.argwhere(np.asarray(mask) > 0))
    return float(np.linalg.norm(apply_affine(matrix, points) - points, axis=1).mean())
