"""The BOLD reference: early faults of the series, non-steady first volumes, and a sharp image to align to.

Axes: X Y Z voxels, T time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess.frames import Frames
from boldmill.preprocess.motion import Float, displacement
from boldmill.preprocess.realign import FINE, RADIUS, Motion, realign

Array = NDArray[Any]

LARGE_MOTION = 1.0
"""Mean displacement (mm) above which a second look, at the realigned median, is worth its cost."""
SUBSET = 24
"""Volumes that make the reference."""
NOT_CONVERGED = 0.05
"""Last step (mm) above which a volume counts as not converged."""
EARLY = 10
"""Only the first volumes can be non-steady."""


def check_series(series: Array | Frames, tr: float | None, *, where: str, min_volumes: int = 10) -> None:
    """Refuse a series no later step could use.

    Parameters
    ----------
    series : array (X, Y, Z, T)
        Raw BOLD data.
    tr : float or None
        Repetition time, s.
    where : str
        The file, for the message.
    min_volumes : int
        Fewer volumes are refused.

    Raises
    ------
    DataFault
        No repetition time, too few volumes, or volumes without any signal.
    """
    if tr is None or not np.isfinite(tr) or tr <= 0:
        fix = "add RepetitionTime (s) to the JSON sidecar, or exclude the run"
        raise DataFault("cannot preprocess BOLD", where, f"the repetition time is {tr}", fix)
    count = series.shape[3]
    if count < min_volumes:
        why = f"it has {count} volumes, at least {min_volumes} are needed"
        raise DataFault("cannot preprocess BOLD", where, why, "exclude the run (it was probably aborted)")
    empty = [t for t in range(count) if not np.ptp(series[..., t]) > 0]
    if empty:
        shown = ", ".join(str(t) for t in empty[:5])
        why = f"{len(empty)} of {count} volumes hold no signal or no finite value (first: {shown})"
        raise DataFault("cannot preprocess BOLD", where, why, "restore the file, or exclude the run")


def epi_mask(mean: Array, affine: Float) -> Array:
    """Return a rough head mask (X, Y, Z) of an EPI mean, for realignment and mutual information only."""
    import nibabel
    from nilearn.masking import compute_epi_mask
    from scipy.ndimage import binary_fill_holes

    nifti: Any = nibabel.Nifti1Image
    image = nifti(np.asarray(mean, dtype=np.float32), affine)
    try:
        mask = np.asarray(compute_epi_mask(image, opening=1, verbose=0).dataobj) > 0
    except (ValueError, RuntimeError) as error:
        why = f"no head stands out from the background ({' '.join(str(error).split())})"
        raise DataFault("cannot mask BOLD", "mean image", why, "look at the image; exclude the run") from error
    filled: Array = binary_fill_holes(mask)
    if filled.sum() < 200:
        why = f"the head mask has only {int(filled.sum())} voxels"
        raise DataFault("cannot mask BOLD", "mean image", why, "look at the image; exclude the run")
    return filled


def count_non_steady(series: Array | Frames, mask: Array, threshold: float = 3.5) -> int:
    """Return how many first volumes precede the steady state: they are marked, never cut.

    A first volume counts while its mean is an outlier above the later ones (modified z over the median absolute
    deviation, and at least 1 %), or while both its distance from the median image and the intensity step to the next
    volume (DVARS) are such outliers (and at least 25 % above their medians): a lone step is motion.

    Parameters
    ----------
    series : array (X, Y, Z, T)
        Raw BOLD data.
    mask : bool array (X, Y, Z)
        Head mask.
    threshold : float
        Modified z above which a value is an outlier (nipype's rule).
    """
    early = range(min(60, series.shape[3]))
    values = np.stack([series[..., t][mask] for t in early], axis=1).astype(np.float64)  # (V, t)
    limit = min(EARLY, values.shape[1] // 4)
    means = values.mean(axis=0)
    steps = np.sqrt(np.mean(np.diff(values, axis=1) ** 2, axis=0))
    far = np.sqrt(np.mean((values - np.median(values, axis=1, keepdims=True)) ** 2, axis=0))
    bright = _high(means, threshold, 1.01)[:limit]
    jump = _high(steps, threshold, 1.25)[:limit] & _high(far, threshold, 1.25)[:limit]
    steady = np.flatnonzero(~(bright | jump))
    return int(steady[0]) if len(steady) else limit


def _high(values: Float, threshold: float, ratio: float) -> Array:
    median = float(np.median(values))
    spread = float(np.median(np.abs(values - median)))
    return np.asarray((values > ratio * median) & (0.6745 * (values - median) > threshold * max(spread, 1e-9)))


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """``image`` (X, Y, Z): the realigned median or mean; ``mask``: head mask; ``motion``; ``non_steady`` volumes;
    ``index`` of the volume that fixes the position (None: the mean does); ``repeated``: volumes aligned a second time.
    """

    image: Array
    mask: Array
    motion: Motion
    non_steady: int
    index: int | None
    repeated: int


def estimate(series: Array | Frames, affine: Float) -> Reference:
    """Estimate head motion and a sharp reference.

    The steady volume nearest to the median image is the first target and fixes the reference's position; the
    median of a realigned subset is the reference. Volumes in which the head moved more than 1 mm are refined once more
    against that median.

    Parameters
    ----------
    series : array (X, Y, Z, T)
        Raw BOLD data on its native grid.
    affine : array (4, 4)
        Voxel to world.
    """
    from scipy.ndimage import binary_dilation

    count = series.shape[3]
    picks = np.unique(np.linspace(0, count - 1, min(count, SUBSET)).astype(int))
    rough = np.median(series[..., picks], axis=3)
    mask = epi_mask(rough, affine)
    non_steady = count_non_steady(series, mask)
    picks = np.unique(np.linspace(non_steady, count - 1, min(count - non_steady, SUBSET)).astype(int))
    rough = np.median(series[..., picks], axis=3)
    far = [float(np.mean((series[..., t][mask] - rough[mask]) ** 2)) for t in picks]
    index = int(picks[int(np.argmin(far))])

    def volume(t: int) -> Array:
        return np.asarray(series[..., t])

    near = binary_dilation(mask)  # the edge of the brain is where motion shows most
    motion = realign(volume, count, volume(index), affine, near)
    image = _median(series, motion.matrices, affine, picks)
    moved = np.flatnonzero(displacement(motion.matrices, _sphere(affine, mask)) > LARGE_MOTION)
    if len(moved):
        again = realign(
            lambda i: volume(int(moved[i])),
            len(moved),
            image,
            affine,
            near,
            levels=(FINE,),
            start=motion.matrices[moved],
        )
        for whole, part in zip(motion.fields, again.fields, strict=True):
            whole[moved] = part
    return Reference(image, mask, motion, non_steady, index, len(moved))


def estimate_to_mean(series: Array | Frames, affine: Float) -> Reference:
    """Estimate head motion against the temporal mean, in two passes.

    The series is aligned to the mean of the steady raw volumes, then to the mean of the aligned ones, which is the
    reference (C-PAC's two passes of 3dvolreg).

    Parameters
    ----------
    series : array (X, Y, Z, T)
        BOLD data on its native grid.
    affine : array (4, 4)
        Voxel to world.
    """
    from scipy.ndimage import binary_dilation

    count = series.shape[3]
    rough = _mean(series, np.tile(np.eye(4), (count, 1, 1)), affine, range(count))
    mask = epi_mask(rough, affine)
    non_steady = count_non_steady(series, mask)
    near, steady = binary_dilation(mask), range(non_steady, count)

    def volume(t: int) -> Array:
        return np.asarray(series[..., t])

    raw = _mean(series, np.tile(np.eye(4), (count, 1, 1)), affine, steady)
    first = realign(volume, count, raw, affine, near)
    image = _mean(series, first.matrices, affine, steady)
    motion = realign(volume, count, image, affine, near, levels=(FINE,), start=first.matrices)
    return Reference(image, mask, motion, non_steady, None, count)


def estimate_by(series: Array | Frames, affine: Float, align: Callable[[Array], Float], *, to_mean: bool) -> Reference:
    """Return reference and motion found by another program.

    Parameters
    ----------
    series : array (X, Y, Z, T)
        BOLD data on its native grid.
    affine : array (4, 4)
        Voxel to world.
    align : callable
        Given a target image (X, Y, Z), returns the motion (T, 4, 4) of every volume against it.
    to_mean : bool
        Align to the mean, twice, as :func:`estimate_to_mean`; else to the steady volume nearest the median.
    """
    count = series.shape[3]
    picks = np.unique(np.linspace(0, count - 1, min(count, SUBSET)).astype(int))
    mask = epi_mask(np.median(series[..., picks], axis=3), affine)
    non_steady = count_non_steady(series, mask)
    steady = range(non_steady, count)
    picks = np.unique(np.linspace(non_steady, count - 1, min(len(steady), SUBSET)).astype(int))
    index: int | None = None
    if to_mean:
        still = np.tile(np.eye(4), (count, 1, 1))
        image = _mean(series, align(_mean(series, still, affine, steady)), affine, steady)
        matrices = align(image)
    else:
        rough = np.median(series[..., picks], axis=3)
        far = [float(np.mean((series[..., int(t)][mask] - rough[mask]) ** 2)) for t in picks]
        index = int(picks[int(np.argmin(far))])
        matrices = align(np.asarray(series[..., index]))
        image = _median(series, matrices, affine, picks)
    motion = Motion(matrices, np.ones(count), np.zeros(count))
    return Reference(image, mask, motion, non_steady, index, 0)


def _mean(series: Array | Frames, matrices: Float, affine: Float, picks: range) -> Array:
    total = np.zeros(series.shape[:3])
    for t in picks:
        total += _aligned(series[..., t], matrices[t], affine)
    return np.asarray(total / len(picks), dtype=np.float32)


def _aligned(data: Array, matrix: Float, affine: Float) -> Array:
    """Return a volume on the reference's position; an unmoved one is not interpolated."""
    from scipy.ndimage import affine_transform

    if np.array_equal(matrix, np.eye(4)):
        return data
    chain = np.linalg.inv(affine) @ matrix @ affine
    return np.asarray(affine_transform(data, chain[:3, :3], chain[:3, 3], order=3, mode="mirror", output=np.float32))


def _median(series: Array | Frames, matrices: Float, affine: Float, picks: Array) -> Array:
    aligned = [_aligned(series[..., int(t)], matrices[t], affine) for t in picks]
    return np.asarray(np.median(aligned, axis=0), dtype=np.float32)


def _sphere(affine: Float, mask: Array) -> Float:
    """Return six points at the radius of a head about the centre of a mask."""
    centre = centre_of(mask, affine)
    return centre + RADIUS * np.concatenate([np.eye(3), -np.eye(3)])


def centre_of(mask: Array, affine: Float) -> Float:
    """Return the world centre (3,) of a mask, mm: the point rotations are reported about."""
    where = np.argwhere(mask).mean(axis=0)
    return np.asarray(affine[:3, :3] @ where + affine[:3, 3])
