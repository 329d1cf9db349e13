"""BOLD to T1w: mutual information from several starts, then the boundary refinement, with a rule to accept it.

Axes: X Y Z voxels; 4x4 world matrices (RAS mm) from T1w world to BOLD-reference world.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from boldmill.preprocess import bbr
from boldmill.preprocess.affine import to_matrix
from boldmill.preprocess.images import RAS_TO_LPS, Volume, bounding_box, crop_volume, regrid, sitk, to_sitk
from boldmill.preprocess.motion import Float, matrix_of
from boldmill.preprocess.n4 import one_thread
from boldmill.preprocess.transforms import apply_affine, resample

PITCH = (0.0, -15.0, 15.0)
"""Pitch of the starts about the aligned centres, degrees; the header's position is one more start."""
MOVING_ZOOM = 2.0


WRONG_COST = 0.93
"""Boundary cost above which T1w and BOLD hardly belong together (chance is 1)."""

FACTS = ("method", "cost", "sign", "cost_header", "cost_start", "moved", "from_header", "flags")
"""Fields of the result that describe it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coregistration:
    """Result: ``matrix`` T1w world to BOLD world, how it was found, its boundary cost and how far it moved (mm)."""

    matrix: Float
    method: str
    cost: float
    sign: float
    cost_header: float
    cost_start: float
    moved: float
    from_header: float
    flags: list[str] = field(default_factory=list)


class Images(NamedTuple):
    """The images of a coregistration: the first five arguments of :func:`coregister`."""

    reference: Volume
    mask: Volume
    brain: Volume
    white: Volume
    grey: Volume


def wrong_person(cost: float) -> list[str]:
    """Return the flag of a boundary cost that no alignment of one person's images has."""
    if cost < WRONG_COST:
        return []
    return [
        f"T1w and BOLD do not match: boundary cost {cost:.2f} after the registration, {WRONG_COST} or more (chance "
        "is 1); they may be of different people, or the run shows no contrast"
    ]


def described(images: Images, matrix: Float, method: str, *, key: tuple[str | int, ...]) -> Coregistration:
    """Return a matrix that another engine found, with its boundary cost as the default engine measures it."""
    edge = bbr.boundary(images.white, images.grey, key=key)
    header, final = (bbr.contrast(images.reference, edge, m) for m in (np.eye(4), matrix))
    return Coregistration(
        matrix=matrix, method=method, cost=final.cost, sign=final.sign, cost_header=header.cost,
        cost_start=final.cost, moved=0.0, from_header=_distance(edge.surface, np.eye(4), matrix),
        flags=wrong_person(final.cost),
    )  # fmt: skip


def coregister(
    reference: Volume,
    mask: Volume,
    brain: Volume,
    white: Volume,
    grey: Volume,
    *,
    key: tuple[str | int, ...],
    threads: int = 1,
) -> Coregistration:
    """Register a BOLD reference with a brain-extracted T1w (6 degrees of freedom).

    Parameters
    ----------
    reference : Volume (X, Y, Z)
        BOLD reference on its native grid.
    mask : Volume (X, Y, Z)
        Rough head mask of the reference.
    brain : Volume (X, Y, Z)
        T1w, zero outside the brain (with the neck in view, mutual information fails).
    white, grey : Volume (X, Y, Z)
        Tissue probabilities in T1w space.
    key : tuple
        Key of the random choices (scan and seed).
    threads : int
        SimpleITK threads; 1 makes reruns identical.

    Raises
    ------
    DataFault
        No white-matter surface.
    """
    edge = bbr.boundary(white, grey, key=key)
    starts = mutual_information(reference, mask, brain, key=key, threads=threads)
    scored = [(bbr.contrast(reference, edge, matrix), matrix) for matrix in starts]
    best, start = min(scored, key=lambda pair: pair[0].cost)
    header = bbr.contrast(reference, edge, np.eye(4))
    refined, after = bbr.refine(reference, edge, start)
    moved = _distance(edge.surface, start, refined)
    flags: list[str] = []
    ok = after.cost < bbr.ACCEPT_COST and after.sign > bbr.ACCEPT_SIGN and moved <= bbr.ACCEPT_MOVE
    if ok and after.cost <= best.cost:
        matrix, method, final = refined, "boundary", after
    else:
        matrix, method, final = start, "mutual_information", best
        flags.append(
            f"boundary registration refused (cost {after.cost:.2f}, {100 * after.sign:.0f} % of points with the right "
            f"sign, moved {moved:.1f} mm): the mutual-information result is used; look at the overlay"
        )
    flags += wrong_person(final.cost)
    return Coregistration(
        matrix=matrix,
        method=method,
        cost=final.cost,
        sign=final.sign,
        cost_header=header.cost,
        cost_start=best.cost,
        moved=moved,
        from_header=_distance(edge.surface, np.eye(4), matrix),
        flags=flags,
    )


def _distance(points: Float, one: Float, other: Float) -> float:
    """Mean distance (mm) between two placements of points."""
    return float(np.linalg.norm(apply_affine(one, points) - apply_affine(other, points), axis=1).mean())


def mutual_information(
    reference: Volume, mask: Volume, brain: Volume, *, key: tuple[str | int, ...], threads: int = 1
) -> list[Float]:
    """Return one T1w-to-BOLD matrix per start (rigid, Mattes mutual information, SimpleITK).

    Starts: the header's position, and aligned centres of mass with three pitches. Fixed is the BOLD reference
    inside its dilated mask; moving is the brain-extracted T1w at 2 mm.
    """
    from scipy.ndimage import binary_dilation

    from boldmill.rng import key128

    itk = sitk()
    one_thread(threads)

    inside = brain.data > 0
    if inside.any():
        brain = crop_volume(brain, *bounding_box(inside, 3))
    if float(brain.grid.zooms.min()) < 0.9 * MOVING_ZOOM:
        brain = resample(brain, regrid(brain.grid, MOVING_ZOOM))
    wide = binary_dilation(np.asarray(mask.data) > 0, iterations=2)
    fixed = to_sitk(reference.data, reference.affine)
    moving = to_sitk(brain.data, brain.affine)
    fixed_mask = itk.Cast(to_sitk(wide.astype(np.float32), reference.affine), itk.sitkUInt8)
    seed = key128("mutual information", *key) % (2**31 - 1) + 1
    centre_bold = _centre(reference.data * (np.asarray(mask.data) > 0), reference.affine)
    centre_t1w = _centre(brain.data, brain.affine)
    starts = [np.eye(4)]
    for pitch in PITCH:  # BOLD world to T1w world
        turn = matrix_of(np.array([0, 0, 0, np.radians(pitch), 0, 0]), centre_bold)
        move = np.eye(4)
        move[:3, 3] = centre_t1w - centre_bold
        starts.append(move @ turn)
    zoom = float(reference.grid.zooms.mean())
    found: list[Float] = []
    for start in starts:
        lps = RAS_TO_LPS @ start @ RAS_TO_LPS
        transform = itk.Euler3DTransform()
        centre = (RAS_TO_LPS[:3, :3] @ centre_bold).tolist()
        transform.SetCenter(centre)
        transform.SetMatrix(lps[:3, :3].ravel().tolist(), 1e-6)
        transform.SetTranslation((lps[:3, :3] @ centre + lps[:3, 3] - centre).tolist())
        _run(itk, fixed, moving, fixed_mask, transform, zoom, seed, threads)
        found.append(np.asarray(np.linalg.inv(to_matrix(transform))))
    return found


def _run(itk: Any, fixed: Any, moving: Any, mask: Any, transform: Any, zoom: float, seed: int, threads: int) -> None:
    """Improve a rigid transform in place."""
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.5, seed)
    method.SetMetricFixedMask(mask)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100, 0.5, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    shrink = [max(1, round(8.0 / zoom)), max(1, round(4.0 / zoom))]
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([6.0, 3.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetNumberOfThreads(threads)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        # A start without overlap has no mutual information: the other starts decide.
        if "samples" not in str(error) and "overlap" not in str(error).lower():
            raise


def _centre(data: Any, affine: Float) -> Float:
    from scipy.ndimage import center_of_mass

    return np.asarray(apply_affine(affine, np.array([center_of_mass(np.maximum(data, 0))]))[0])
