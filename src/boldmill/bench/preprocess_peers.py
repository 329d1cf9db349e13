"""The peers of the preprocessing bench: antspyx, SimpleITK and dipy, called as their users call them.

Every function returns world matrices or mappings in RAS mm and the CPU-seconds of the call (all threads).

Axes: T volumes, N points; 4x4 matrices map fixed (reference) world to moving world.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess.affine import to_matrix
from boldmill.preprocess.images import RAS_TO_LPS, Array, Volume, sitk, to_sitk

Float = NDArray[np.float64]


def installed(name: str) -> bool:
    """Whether a peer's module can be imported."""
    return importlib.util.find_spec(name) is not None


def _ants() -> Any:
    """Return antspyx, imported when first needed (it carries no types)."""
    return importlib.import_module("ants")


def cpu_seconds() -> float:
    """Return the CPU-seconds of this process and its finished children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its CPU-seconds."""
    start = cpu_seconds()
    result = call()
    return result, cpu_seconds() - start


def ants_image(volume: Volume) -> Any:
    """Return an antspyx image (LPS) of a volume."""
    affine = RAS_TO_LPS @ volume.affine
    zooms = volume.grid.zooms
    return _ants().from_numpy(
        np.ascontiguousarray(volume.data, dtype=np.float32),
        origin=affine[:3, 3].tolist(),
        spacing=zooms.tolist(),
        direction=affine[:3, :3] / zooms,
    )


def _ants_matrix(path: str) -> Float:
    """Read an ITK matrix transform file as a RAS matrix."""
    itk = sitk()
    return to_matrix(itk.AffineTransform(itk.ReadTransform(path)))


def ants_motion(volume: Callable[[int], Array], picks: Sequence[int], reference: Volume) -> tuple[Float, float]:
    """Return antspyx ``motion_correction`` (BOLDRigid) of some volumes: matrices (T, 4, 4) and CPU-s."""
    series = np.stack([volume(t) for t in picks], axis=-1).astype(np.float32)
    affine = RAS_TO_LPS @ reference.affine
    direction = np.eye(4)
    direction[:3, :3] = affine[:3, :3] / reference.grid.zooms
    image = _ants().from_numpy(
        series,
        origin=[*affine[:3, 3].tolist(), 0.0],
        spacing=[*reference.grid.zooms.tolist(), 1.0],
        direction=direction,
    )
    fixed = ants_image(reference)
    found, used = timed(lambda: _ants().motion_correction(image, fixed=fixed, type_of_transform="BOLDRigid"))
    return np.stack([_ants_matrix(paths[0]) for paths in found["motion_parameters"]]), used


def ants_rigid(fixed: Volume, moving: Volume) -> tuple[Float, float]:
    """Return the rigid matrix (fixed to moving) of antspyx (Mattes mutual information), and CPU-s."""
    images = ants_image(fixed), ants_image(moving)
    call = lambda: _ants().registration(*images, type_of_transform="Rigid", aff_metric="mattes", random_seed=1)  # noqa: E731
    found, used = timed(call)
    return _ants_matrix(found["fwdtransforms"][0]), used


def ants_syn(fixed: Volume, moving: Volume) -> tuple[Callable[[Float], Float], float]:
    """Return the fixed-to-moving point mapping of antspyx's default SyN, and CPU-s."""
    import pandas

    images = ants_image(fixed), ants_image(moving)
    found, used = timed(lambda: _ants().registration(*images, type_of_transform="SyN", random_seed=1))

    def mapping(points: Float) -> Float:
        frame = pandas.DataFrame(points * [-1, -1, 1], columns=["x", "y", "z"])
        moved = _ants().apply_transforms_to_points(3, frame, found["fwdtransforms"])
        return np.asarray(moved[["x", "y", "z"]].to_numpy() * [-1, -1, 1])

    return mapping, used


def itk_rigid(
    fixed: Volume, moving: Volume, mask: Array | None = None, *, metric: str = "squares", sampled: float = 0.3
) -> tuple[Float, float]:
    """Return the matrix (fixed to moving) of SimpleITK's Versor transform on three levels, and CPU-s."""
    itk = sitk()
    one, two = to_sitk(fixed.data, fixed.affine), to_sitk(moving.data, moving.affine)

    def call() -> Float:
        method = itk.ImageRegistrationMethod()
        if metric == "squares":
            method.SetMetricAsMeanSquares()
        else:
            method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(sampled, 1)
        if mask is not None:
            method.SetMetricFixedMask(itk.Cast(to_sitk(mask.astype(np.float32), fixed.affine), itk.sitkUInt8))
        method.SetInterpolator(itk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200, 0.5, 1e-8)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([6.0, 3.0, 0.0])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetNumberOfThreads(1)
        start = itk.CenteredTransformInitializer(
            one, two, itk.VersorRigid3DTransform(), itk.CenteredTransformInitializerFilter.GEOMETRY
        )
        start.SetTranslation((0.0, 0.0, 0.0))  # from the header: it is nearer than the centres of the fields of view
        method.SetInitialTransform(start, inPlace=True)
        method.Execute(one, two)
        return to_matrix(start)

    return timed(call)


def dipy_rigid(fixed: Volume, moving: Volume) -> tuple[Float, float]:
    """Return the matrix (fixed to moving) of dipy's rigid registration (mutual information), and CPU-s."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import RigidTransform3D

    engine = AffineRegistration(
        metric=MutualInformationMetric(nbins=32, sampling_proportion=30),
        level_iters=[1000, 100, 50],
        sigmas=[2.0, 1.0, 0.0],
        factors=[3, 2, 1],
        verbosity=0,
    )
    call = lambda: engine.optimize(  # noqa: E731
        fixed.data,
        moving.data,
        RigidTransform3D(),
        None,
        static_grid2world=fixed.affine,
        moving_grid2world=moving.affine,
    )
    found, used = timed(call)
    return np.asarray(found.affine), used
