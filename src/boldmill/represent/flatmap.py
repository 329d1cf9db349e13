"""Cortical flat maps of one run, in the order of one of the published generations.

`v2` (default): project to the flat grid, z-score each pixel over the run, resample to the target repetition time.
`v1`: z-score each vertex over the run, resample, project. SDs are of the population, zero variance gives 0. Stored as
float16 with the mean and SD of every pixel (`v1`: of its vertices, interpolated). Both orders go on, on the training
device, with the frame norm and the clamp at 3 SD.

Data in a volume or on another mesh pass through the vertices of the flat surface's mesh: two sparse products (one
composed matrix would have 30 times the non-zeros of the second). A vertex is covered if at least half of its sampling
weight lies in the run's mask (the mean is over that part) and its series varies. Others take the series of the nearest
covered vertex of their hemisphere on the sphere, so that no pixel is empty; the share of covered pixels is reported.

Axes: X voxels (i fastest), V vertices, N pixels of the mask, T volumes, S frames after resampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.represent.parallel import each, pieces
from boldmill.represent.project import Projector, columns_of
from boldmill.represent.series import Series
from boldmill.represent.timeresample import n_resampled, resample

EPSILON = 1e-6
MIN_WEIGHT = 0.5
MIN_COVERED = 0.5
"""A run that covers a smaller share of the pixels is no cortical flat map."""
PIXELS = 1024
"""Pixels or vertices resampled at a time: bounds the memory, and a piece stays in the cache."""
Preset = Literal["v2", "v1"]


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
        To the flat surface's mesh, from a volume or another mesh; ``None`` where the series is on that mesh already.
    """
    if operator is None:
        whole = np.zeros((len(series.mask), series.n_volumes), np.float32)
        first = 0
        for block in series.blocks(np.flatnonzero(series.mask)):
            whole[series.mask, first : first + block.shape[1]] = block
            first += block.shape[1]
        return whole, series.mask.copy()
    weight = operator @ series.mask.astype(np.float32)
    covered = weight >= MIN_WEIGHT
    columns = columns_of(operator, series.mask)
    project = Projector(operator, columns)
    whole = np.zeros((operator.shape[0], series.n_volumes), np.float32)
    first = 0
    for block in series.blocks(columns):
        project(block, whole[:, first : first + block.shape[1]])
        first += block.shape[1]
    whole /= np.where(covered, weight, 1)[:, None]
    return whole, covered & (whole.max(1) - whole.min(1) > EPSILON)


def fill_vertices(
    values: NDArray[np.float32], covered: NDArray[np.bool_], spheres: list[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Give each uncovered vertex, in place, the series of the nearest covered vertex on its hemisphere's sphere.

    Parameters
    ----------
    values : (V, T) array
        Returned, with its uncovered rows overwritten.
    covered : (V,) array of bool
    spheres : list of (V/2, 3) array
        Left, then right.

    Raises
    ------
    DataFault
        A hemisphere has no covered vertex.
    """
    from scipy.spatial import cKDTree

    start = 0
    for side, sphere in zip(("left", "right"), spheres, strict=True):
        inside = covered[start : start + len(sphere)]
        if not inside.any():
            why = f"no vertex of the {side} hemisphere has data"
            raise DataFault("no cortex", "run", why, "check registration and field of view of this run")
        have, lack = np.flatnonzero(inside), np.flatnonzero(~inside)
        if len(lack):
            values[start + lack] = values[start + have[cKDTree(sphere[have]).query(sphere[lack])[1]]]
        start += len(sphere)
    return values


def zscore(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Standardise series over time (first axis): population SD, statistics in float64, zero variance gives 0."""
    scaled = values.astype(np.float64)
    mean = scaled.mean(0)
    scaled -= mean
    std = np.sqrt(np.einsum("tn,tn->n", scaled, scaled) / len(scaled))
    scaled /= np.maximum(std, EPSILON)
    scaled[:, std <= EPSILON] = 0
    return scaled.astype(np.float32), mean.astype(np.float32), std.astype(np.float32)


def flat_run(
    vertices: NDArray[np.float32],
    covered: NDArray[np.bool_],
    flat: Any,
    tr: float,
    target_tr: float,
    *,
    preset: Preset = "v2",
    progress: Callable[[int], object] | None = None,
) -> FlatRun:
    """Make the flat maps of one run.

    Parameters
    ----------
    vertices : (V, T) array
        Without gaps (:func:`fill_vertices`).
    covered : (V,) array of bool
        Before filling.
    flat : csr_array, (N, V)
    tr, target_tr : float
        s.
    preset : {"v2", "v1"}
        Order of z-score, resampling and projection.
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
    if preset == "v1":
        vertices, below, spread = _scaled_vertices(vertices, tr, target_tr)
        mean, std = flat @ below, flat @ spread

    def some(part: slice) -> None:
        pixels = np.asarray(flat[part] @ vertices, np.float32).T
        if preset == "v2":
            scaled, mean[part], std[part] = zscore(pixels)
            pixels = resample(scaled, tr, target_tr)
        frames[:, part] = pixels
        if progress:
            progress(part.stop - part.start)

    each(some, pieces(total, PIXELS))
    return FlatRun(frames=frames, mean=mean, std=std, covered=seen)


def _scaled_vertices(
    vertices: NDArray[np.float32], tr: float, target_tr: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return z-scored and resampled vertex series (V, S), and the mean and SD (V,) they had."""
    scaled = np.zeros((len(vertices), n_resampled(vertices.shape[1], tr, target_tr)), np.float32)
    mean, std = np.zeros(len(vertices), np.float32), np.zeros(len(vertices), np.float32)
    for first in range(0, len(vertices), PIXELS):
        part = slice(first, first + PIXELS)
        series, mean[part], std[part] = zscore(vertices[part].T)
        scaled[part] = resample(series, tr, target_tr).T
    return scaled, mean, std
