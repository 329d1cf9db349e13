"""aCompCor: principal components of eroded white matter and CSF, after a cosine high-pass.

Axes: T time, V voxels, K components, N BOLD voxels.

Source: Behzadi 2007 (doi 10.1016/j.neuroimage.2007.04.042); high-pass before the decomposition: Muschelli 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess.drifts import cosines
from boldmill.preprocess.images import Volume
from boldmill.preprocess.motion import Float
from boldmill.preprocess.transforms import apply_affine, sample

Array = NDArray[Any]

ENOUGH = 20
"""Voxels a tissue mask needs before the next, laxer rule is tried."""
DEEP = 8.0
"""Distance from the edge of the BOLD mask of the purest voxels, mm."""
HALF = 0.5
"""Share of the variance up to which components are kept (fMRIPrep)."""
MOST = 50
"""Components kept at most for that share."""
LADDER = {"csf": (0.9, 0.9, 0.6, 0.4), "wm": (0.99, 0.9, 0.8, 0.6)}
"""Thresholds on the tissue share of a BOLD voxel; the first is used with erosion."""


def tissue_share(probability: Volume, voxels: Float, edges: Float, coregistration: Float) -> Array:
    """Return the mean tissue probability over each BOLD voxel (N,): 27 points per voxel.

    Parameters
    ----------
    probability : Volume (X, Y, Z)
        Tissue probability in T1w space.
    voxels : array (N, 3)
        Voxel centres in BOLD-reference world, mm.
    edges : array (3, 3)
        Columns are the voxel's edge vectors, mm (the direction part of the affine).
    coregistration : array (4, 4)
        T1w world to BOLD-reference world.
    """
    back = np.linalg.inv(coregistration)
    total = np.zeros(len(voxels))
    steps = (-1 / 3, 0.0, 1 / 3)
    for i in steps:
        for j in steps:
            for k in steps:
                total += sample(
                    probability, apply_affine(np.asarray(back, dtype=np.float64), voxels + edges @ np.array([i, j, k]))
                )
    return total / 27.0


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """``inside`` (N,) and, in words, the rule that gave enough voxels."""

    inside: Array
    rule: str


def tissue_mask(share: Array, deep: Array, kind: str) -> TissueMask:
    """Return the purest tissue mask with at least 20 voxels.

    Parameters
    ----------
    share : array (N,)
        Tissue share of each BOLD voxel.
    deep : bool array (N,)
        Voxels that are pure after erosion and away from the brain's edge.
    kind : str
        ``"csf"`` or ``"wm"``.
    """
    first, *rest = LADDER[kind]
    rules = [(f"share > {first}, inside the eroded brain", (share > first) & deep)]
    rules += [(f"share > {limit}", share > limit) for limit in rest]
    for rule, inside in rules:
        if inside.sum() >= ENOUGH:
            return TissueMask(inside, rule)
    return TissueMask(np.zeros(len(share), dtype=bool), "no rule gave 20 voxels")


def noise_voxels(probability: Volume, mask: Volume, coregistration: Float, kind: str) -> TissueMask:
    """Return which voxels of a native BOLD mask (N,) are pure noise tissue.

    The tissue map is eroded by 1 mm where its voxels are fine enough for that; "deep" is 8 mm inside the mask.

    Parameters
    ----------
    probability : Volume (X, Y, Z)
        Tissue probability in T1w space.
    mask : Volume (X, Y, Z)
        BOLD mask on its native grid.
    coregistration : array (4, 4)
        T1w world to BOLD world.
    kind : str
        ``"csf"`` or ``"wm"``.
    """
    from scipy.ndimage import distance_transform_edt, grey_erosion

    inside = mask.data > 0.5
    steps = int(np.rint(1.0 / probability.grid.zooms.max()))
    eroded = probability.like(grey_erosion(probability.data, size=2 * steps + 1)) if steps else probability
    voxels = apply_affine(mask.affine, np.argwhere(inside))
    share = tissue_share(probability, voxels, mask.affine[:3, :3], coregistration)
    pure = tissue_share(eroded, voxels, mask.affine[:3, :3], coregistration) if steps else share
    depth = distance_transform_edt(np.pad(inside, 1), sampling=mask.grid.zooms)[1:-1, 1:-1, 1:-1][inside]
    return tissue_mask(share, (depth > DEEP) & (pure > LADDER[kind][0]), kind)


def mean_signal(series: Array, inside: Array) -> Float:
    """Return the mean of voxels (T,), NaN where there are none."""
    if not inside.any():
        return np.full(len(series), np.nan)
    return np.asarray(series[:, inside].mean(axis=1, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """``values`` (T, K) at unit length, with singular values and shares of variance (K,)."""

    values: Float
    singular: Float
    explained: Float


def high_pass(series: Array, tr: float, cutoff: float = 128.0) -> Float:
    """Return series (T, V) without their mean and their drift cosines.

    Parameters
    ----------
    series : array (T, V)
        Voxel series.
    tr : float
        Repetition time, s.
    cutoff : float
        Period of the fastest cosine, s.
    """
    used = series.astype(np.float64)
    count = len(used)
    drift = np.concatenate([np.full((count, 1), count**-0.5), cosines(count, tr, cutoff)], axis=1)
    used -= drift @ (drift.T @ used)
    return used


def components(
    series: Array, tr: float, n_components: int, *, cutoff: float = 128.0, skip: int = 0, share: float = 0.0
) -> Components:
    """Return the first principal components of voxel series.

    Parameters
    ----------
    series : array (T, V)
        Voxel series of the noise region.
    tr : float
        Repetition time, s.
    n_components : int
        K; fewer where the data have a lower rank.
    cutoff : float
        Period of the high-pass, s.
    skip : int
        Non-steady first volumes: not used, and 0 in the components.
    share : float
        More components are kept up to this share of the variance, but no more than ``MOST`` for that.
    """
    used = high_pass(series[skip:], tr, cutoff)
    spread = used.std(axis=0)
    used = used[:, spread > 0] / spread[spread > 0]
    values, vectors = np.linalg.eigh(used @ used.T)
    order = np.argsort(values)[::-1]
    values, vectors = np.maximum(values[order], 0.0), vectors[:, order]
    total = float(values.sum())
    rank = int((values > 1e-9 * max(total, 1e-30)).sum())
    enough = int(np.searchsorted(np.cumsum(values), share * total)) + 1 if share > 0 else 0
    kept = min(max(n_components, min(enough, MOST)), rank)
    vectors = vectors[:, :kept]
    peak = vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)]
    vectors = vectors * np.where(peak < 0, -1.0, 1.0)  # the sign of an eigenvector is arbitrary: fix it
    out = np.concatenate([np.zeros((skip, kept)), vectors])
    return Components(out, np.sqrt(values[:kept]), values[:kept] / total if total > 0 else values[:kept])
