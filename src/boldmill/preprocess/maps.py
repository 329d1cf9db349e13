"""Voxel maps of a run as pure functions: ALFF, fALFF and ReHo on the native grid, then in template space.

Axes: T time, X Y Z voxels, N voxels of the native mask, K maps, M points of the output grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess import clean, design
from boldmill.preprocess.alff import BAND, fluctuation
from boldmill.preprocess.clean import fourier_box
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.freedom import band
from boldmill.preprocess.images import Volume
from boldmill.preprocess.motion import Float
from boldmill.preprocess.reho import reho
from boldmill.preprocess.series_io import image_of
from boldmill.preprocess.transforms import sample

Array = NDArray[Any]

COVERED = 0.5
"""Share of a voxel's interpolation weights that must lie in the native mask."""


def native_maps(
    series: Array, mask: Array, config: CleanConfig, table: Table, tr: float, wanted: list[str], *, where: str
) -> dict[str, Array]:
    """Return maps (N,) float32 by name.

    Parameters
    ----------
    series : array (T, N)
        Realigned native series.
    mask : bool array (X, Y, Z)
        BOLD mask on the native grid.
    config : CleanConfig
        Strategy; its pass band, or 0.01 to 0.1 Hz where it has none, is that of ALFF.
    table : Table
        Confounds.
    tr : float
        Repetition time, s.
    wanted : list of str
        ``alff``, ``falff``, ``reho``.
    where : str
        Scan, for messages.
    """
    out: dict[str, Array] = {}
    if {"alff", "falff"} & set(wanted):
        low, high = band_of(config, tr)
        regress = design.plan(design.unfiltered(config), table, tr, where=where).operator
        out["alff"], out["falff"] = fluctuation(series, regress, fourier_box(np.eye(len(series)), tr, low, high))
    if "reho" in wanted:
        plan = design.plan(config, table, tr, where=where)
        out["reho"] = reho(clean.apply(plan.operator, np.array(series, dtype=np.float32)), mask)
    return {name: out[name] for name in wanted}


def band_of(config: CleanConfig, tr: float) -> tuple[float | None, float | None]:
    """Return the pass band of ALFF, Hz."""
    if band(config, tr) == (None, None):
        return band(config.model_copy(update={"band_low": BAND[0], "band_high": BAND[1]}), tr)
    return band(config, tr)


def to_template(maps: Array, native: Volume, points: Float) -> tuple[Array, Array]:
    """Read maps (K, N) of a native mask at points (M, 3), linearly and without the zeros outside the mask.

    Returns
    -------
    values : array (K, M)
        0 where less than half of the weight lies in the mask.
    covered : bool array (M,)
    """
    inside = native.data > 0.5
    weight = sample(native.like(inside.astype(np.float32)), points)
    covered = weight > COVERED
    values = np.stack([sample(native.like(image_of(one, inside)), points) for one in maps])
    return np.where(covered, values / np.where(covered, weight, 1.0), 0.0).astype(np.float32), covered


def zscored(values: Array) -> Array:
    """Return values (M,) with mean 0 and standard deviation 1; 0 where they do not vary."""
    spread = float(values.std(dtype=np.float64))
    centred = values - values.mean(dtype=np.float64)
    return np.asarray(centred / spread if spread > 0 else np.zeros_like(values), dtype=np.float32)
