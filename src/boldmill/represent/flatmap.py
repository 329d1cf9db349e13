"""Cortical flat maps of one run, in the order of the published second generation.

Project to the flat grid, z-score each pixel over the run (population SD, zero variance gives 0), resample to the target
repetition time, store as float16 with the mean and SD of every pixel.

Volume input passes through the vertices: two sparse products, volume to fsaverage5 and fsaverage5 to pixels (one
composed matrix would have 30 times the non-zeros of the second). A vertex is covered if at least half of its sampling
weight lies in the run's mask (the mean is over that part) and its series varies. Others take the series of the nearest
covered vertex of their hemisphere on the sphere, so that no pixel is empty; the share of covered pixels is reported.

Axes: X voxels (i fastest), V vertices, N pixels of the mask, T volumes, S frames after resampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.represent.series import Series
from boldmill.represent.timeresample import n_resampled, resample

EPSILON = 1e-6
MIN_WEIGHT = 0.5
MIN_COVERED = 0.5
"""A run that covers a smaller share of the pixels is no cortical flat map."""
PIXELS = 4096
"""Pixels resampled at a time: bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlatRun:
    """Flat maps of one run.

    Parameters
    ----------
    frames : (S, N) array of float16
        z-scored over the run, then resampled.
    mean, std : (N,) array of float32
        Of the series before z-scoring, in its own unit.
    covered : (N,) array of bool
        Pixels whose data come mostly from covered vertices.
    """

    frames: NDArray[np.float16]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    covered: NDArray[np.bool_]


def vertex_series(series: Series, operator: Any | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the run on the vertices (V, T), and which vertices are covered.

    Parameters
    ----------
    series : Series
    operator : csr_array (V, X) or None
        Volume to fsaverage5; ``None`` where the series is on fsaverage5 already.
    """
    if operator is None:
        columns = np.arange(len(series.mask))
        values = np.concatenate(list(series.blocks(np.flatnonzero(series.mask))), axis=1)
        whole = np.zeros((len(columns), series.n_volumes), np.float32)
        whole[series.mask] = values
        return whole, series.mask.copy()
    weight = operator @ series.mask.astype(np.float32)
    covered = weight >= MIN_WEIGHT
    columns = np.flatnonzero((np.asarray(operator.sum(axis=0)) > 0) & series.mask)
    inner = operator[:, columns]
    whole = np.zeros((operator.shape[0], series.n_volumes), np.float32)
    first = 0
    for block in series.blocks(columns):
        whole[:, first : first + block.shape[1]] = inner @ block
        first += block.shape[1]
    whole /= np.where(covered, weight, 1)[:, None]
    return whole, covered & (whole.max(1) - whole.min(1) > EPSILON)


def fill_vertices(
    values: NDArray[np.float32], covered: NDArray[np.bool_], spheres: list[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Give each uncovered vertex the series of the nearest covered vertex on its hemisphere's sphere.

    Parameters
    ----------
    values : (V, T) array
    covered : (V,) array of bool
    spheres : list of (V/2, 3) array
        Left, then right.

    Raises
    ------
    DataFault
        A hemisphere has no covered vertex.
    """
    from scipy.spatial import cKDTree

    source = np.arange(len(values))
    start = 0
    for side, sphere in zip(("left", "right"), spheres, strict=True):
        inside = covered[start : start + len(sphere)]
        if not inside.any():
            why = f"no vertex of the {side} hemisphere has data"
            raise DataFault("no cortex", "run", why, "check registration and field of view of this run")
        have = np.flatnonzero(inside)
        source[start : start + len(sphere)] = start + have[cKDTree(sphere[have]).query(sphere)[1]]
        start += len(sphere)
    source[covered] = np.flatnonzero(covered)
    return values[source]


def zscore(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Standardise series over time (first axis): population SD, statistics in float64, zero variance gives 0."""
    mean = values.mean(0, dtype=np.float64)
    std = np.sqrt(np.square(values - mean).mean(0))
    scaled = np.where(std > EPSILON, (values - mean) / np.maximum(std, EPSILON), 0)
    return scaled.astype(np.float32), mean.astype(np.float32), std.astype(np.float32)


def flat_run(
    vertices: NDArray[np.float32],
    covered: NDArray[np.bool_],
    flat: Any,
    tr: float,
    target_tr: float,
    progress: Callable[[int], object] | None = None,
) -> FlatRun:
    """Project vertex series to the flat grid, z-score each pixel, resample in time.

    Parameters
    ----------
    vertices : (V, T) array
        Without gaps (:func:`fill_vertices`).
    covered : (V,) array of bool
        Before filling.
    flat : csr_array, (N, V)
    tr, target_tr : float
        s.
    progress : callable, optional
        Called with the number of pixels done.

    Raises
    ------
    DataFault
        Too few pixels are covered, or the run is too short.
    """
    total = flat.shape[0]
    seen = flat @ covered.astype(np.float32) >= MIN_WEIGHT
    if seen.mean() < MIN_COVERED:
        why = f"{seen.mean():.0%} of the flat map's pixels have data, under {MIN_COVERED:.0%}"
        raise DataFault("cortex is not covered", "run", why, "check registration and field of view of this run")
    frames = np.zeros((n_resampled(vertices.shape[1], tr, target_tr), total), np.float16)
    mean, std = np.zeros(total, np.float32), np.zeros(total, np.float32)
    for first in range(0, total, PIXELS):
        part = slice(first, min(first + PIXELS, total))
        pixels = np.asarray(flat[part] @ vertices, np.float32).T
        scaled, mean[part], std[part] = zscore(pixels)
        frames[:, part] = resample(scaled, tr, target_tr)
        if progress:
            progress(part.stop - part.start)
    return FlatRun(frames=frames, mean=mean, std=std, covered=seen)
