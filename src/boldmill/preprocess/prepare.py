"""From the raw file to the series that is resampled: read once, despike, slice timing, all through scratch files.

The nodes of the workflow and `boldmill apply` call these, so that they give the same bytes.

Axes: X Y Z voxels, T time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess import engines, slicetiming
from boldmill.preprocess.frames import Array, Frames
from boldmill.preprocess.imagefaults import finite_values, reading, sane_scale, sound_affine
from boldmill.preprocess.images import Grid, nib

WHAT = "BOLD run"


def image_shape(path: str | Path) -> tuple[int, ...]:
    """Return the shape of an image from its header.

    Raises
    ------
    DataFault
        The header cannot be read.
    """
    with reading(path, WHAT):
        image: Any = nib().load(path)
        return tuple(int(n) for n in image.shape)


def load(path: str | Path, target: str | Path) -> tuple[Frames, Grid]:
    """Unpack a raw run into a float32 scratch series, volume by volume; values that are not finite become 0.

    Parameters
    ----------
    path : path
        4D NIfTI.
    target : path
        Scratch file.

    Returns
    -------
    frames : Frames (X, Y, Z, T)
    grid : Grid
        Native grid.

    Raises
    ------
    DataFault
        A 3D file, a broken or truncated file, a singular affine, or no signal at all.
    MachineFault
        The file cannot be opened.
    """
    with reading(path, WHAT):
        image: Any = nib().load(path, keep_file_open=True)  # else every volume would unpack the file anew
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 3:
        why, fix = f"it is one 3D volume {shape}, not a series", "give the 4D series (a _sbref is not a run)"
        raise DataFault(f"cannot use {WHAT}", path, why, f"{fix}, or exclude it")
    if len(shape) != 4:
        why = f"it has {len(shape)} dimensions {shape}, expected 4"
        raise DataFault(f"cannot use {WHAT}", path, why, "give a file with the right dimensions, or exclude it")
    affine = sound_affine(image, path, WHAT)
    frames = Frames.create(target, shape)
    rest = (0,) * (len(image.shape) - 4)
    low, high = np.inf, -np.inf
    with frames.open() as handle:
        for t in range(shape[3]):
            data = _volume(image, (slice(None), slice(None), slice(None), t, *rest), path)
            low, high = min(low, float(data.min())), max(high, float(data.max()))
            frames.write(handle, t, data)
    sane_scale(low, high, path, WHAT)
    if low == high:
        why = "all voxels are equal"
        raise DataFault(f"cannot use {WHAT}", path, why, "exclude the scan or restore the file")
    return frames, Grid((shape[0], shape[1], shape[2]), affine)


def _volume(image: Any, at: tuple[Any, ...], path: str | Path) -> Array:
    with reading(path, WHAT), np.errstate(over="ignore", invalid="ignore"):
        try:
            data = np.asarray(image.dataobj[at], dtype=np.float32)
        except ValueError as error:  # nibabel: fewer bytes than the header says
            raise EOFError(" ".join(str(error).split())) from error
    return finite_values(data, image, path, WHAT)


def despiked(frames: Frames, target: str | Path, *, engine: str = engines.DEFAULT) -> Frames:
    """Return the series with its spikes squashed (:func:`boldmill.preprocess.despike.despike`, or another engine)."""
    from boldmill.preprocess.despike import despike

    if engine != engines.DEFAULT:
        from boldmill.preprocess.engine_series import afni_despiked

        engines.need(engines.find("despike", engine))
        return afni_despiked(frames, target)
    return frames.by_voxel(target, lambda slab, _: despike(slab))


def slice_timed(
    frames: Frames, timing: slicetiming.SliceTimes, tr: float, target: str | Path, *, engine: str = engines.DEFAULT
) -> Frames:
    """Return the series with every slice shifted to one reference time (:func:`slicetiming.correct`, or another)."""
    if engine != engines.DEFAULT:
        from boldmill.preprocess.engine_series import afni_slice_timed

        engines.need(engines.find("slice_timing", engine))
        return afni_slice_timed(frames, timing, tr, target)

    def step(slab: Array, low: int) -> Array:
        times = timing.times[low : low + slab.shape[2]] if timing.axis == 2 else timing.times
        return slicetiming.correct(slab, slicetiming.SliceTimes(times, timing.axis, timing.reference), tr)

    return frames.by_voxel(target, step)
