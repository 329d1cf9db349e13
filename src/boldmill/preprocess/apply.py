"""The 4D images of a run, made again from its recipe: the same bytes as were written where they are kept.

Every step is the function the workflow's node calls, on the files the fit left behind.

Axes: X Y Z voxels, T time, N voxels of the BOLD mask in C order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import numpy as np

from boldmill.errors import MachineFault
from boldmill.preprocess import confounds, design, prepare, resampling
from boldmill.preprocess.finish import finish_series
from boldmill.preprocess.frames import Array
from boldmill.preprocess.images import Volume, read_volume
from boldmill.preprocess.recipe import AGAIN, Recipe
from boldmill.preprocess.scratch import scratch
from boldmill.preprocess.series_io import read_rows
from boldmill.preprocess.threads import algebra_threads
from boldmill.preprocess.transforms import read_affine, read_field

Progress = Callable[[range], Any]


def preprocessed(recipe: Recipe, *, progress: Progress = iter) -> tuple[Array, Volume]:
    """Make the series before cleaning again.

    Parameters
    ----------
    recipe : Recipe
        Of the run.
    progress : callable
        Wraps the range of blocks of volumes (tqdm).

    Returns
    -------
    series : array (T, N)
        float32, scaled, in template space.
    mask : Volume (X, Y, Z)
        The BOLD mask N refers to.

    Raises
    ------
    MachineFault
        The raw run or a file of the fit is gone or changed.
    """
    recipe.verify()
    image = read_volume(recipe.file("mask"))
    mask = image.data > 0.5
    own = f"{recipe.scan}-{uuid4().hex}"  # two readers may make the same run at once
    with scratch(recipe.results / "work", "apply", own) as folder, algebra_threads(1):
        frames, native = prepare.load(recipe.raw, folder / "raw.npy")
        if recipe.value["despike"]:
            frames = prepare.despiked(frames, folder / "despiked.npy", engine=recipe.value["engines"]["despike"])
        if recipe.timing is not None:
            engine = recipe.value["engines"]["slice_timing"]
            frames = prepare.slice_timed(frames, recipe.timing, recipe.tr, folder / "timed.npy", engine=engine)
        across, brain = read_affine(recipe.file("coreg")), read_volume(recipe.file("t1w_mask"))
        target = resampling.anatomical_target(recipe.grid, brain, across, read_field(recipe.file("field")))
        matrices = np.loadtxt(recipe.file("hmc"), dtype=np.float64, ndmin=2).reshape(-1, 4, 4)
        if len(matrices) != frames.n_volumes or (mask & ~target.inside).any():
            why = "transforms, mask and raw run do not belong together"
            raise MachineFault("cannot use recipe", recipe.path, why, AGAIN)
        distortion = resampling.read_distortion(recipe.file("distortion")) if recipe.has("distortion") else None
        found = resampling.resample(
            frames,
            native.affine,
            matrices,
            {"template": target},
            folder,
            distortion=distortion,
            progress=progress,
        )["template"]
        keep = mask[target.inside]
        out = np.empty((frames.n_volumes, int(keep.sum())), dtype=np.float32)
        scale, start = np.float32(recipe.value["scale"]), 0
        for rows in read_rows(found.path):
            out[start : start + len(rows)] = rows[:, keep] * scale
            start += len(rows)
    return out, image


def cleaned(recipe: Recipe, *, progress: Progress = iter) -> tuple[Array, Volume]:
    """Make the cleaned series again: (T, N) float32, mean zero, and the mask (X, Y, Z) N refers to.

    Raises
    ------
    MachineFault
        The raw run or a file of the fit is gone or changed.
    """
    series, image = preprocessed(recipe, progress=progress)
    table, config = confounds.read(recipe.file("confounds")), recipe.clean
    with algebra_threads(1):
        plan = design.plan(config, table, recipe.tr, where=recipe.scan)
        return finish_series(series, plan, image.data > 0.5, image.grid.zooms, config), image
