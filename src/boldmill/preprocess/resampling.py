"""Where a run is read: sets of points in BOLD-reference world, one per output grid, and the series at them.

Axes: X Y Z voxels of a grid, T time, N points of a set (the brain voxels of its grid in C order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import read_json
from boldmill.preprocess import onestep
from boldmill.preprocess.boldmask import signal_mask
from boldmill.preprocess.derivatives import sidecar_of
from boldmill.preprocess.frames import Array, Frames
from boldmill.preprocess.images import Grid, Volume, read_volume, write_volume
from boldmill.preprocess.motion import Float
from boldmill.preprocess.noise_regions import crown
from boldmill.preprocess.series_io import image_of, read_rows, row_count, row_writer
from boldmill.preprocess.transforms import apply_affine, sample

BLOCK = 32
"""Volumes between two writes to scratch."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """``grid`` of the output, its brain voxels ``inside`` (X, Y, Z), and their ``points`` (N, 3) in BOLD world."""

    grid: Grid
    inside: Array
    points: Float


def native_target(grid: Grid, brain: Volume, coreg: Float) -> Target:
    """Return the brain voxels of the run's own grid.

    Parameters
    ----------
    grid : Grid
        Native grid of the run.
    brain : Volume (X, Y, Z)
        T1w brain mask.
    coreg : array (4, 4)
        T1w world to BOLD-reference world.
    """
    voxels = grid.points()
    back = np.asarray(np.linalg.inv(coreg), dtype=np.float64)
    own = sample(brain, apply_affine(back, voxels)) > 0.5
    return Target(grid, own.reshape(grid.shape), voxels[own])


def crown_target(native: Target) -> Target:
    """Return the voxels of the run's own grid that surround the brain of its :func:`native_target`."""
    around = crown(native.inside)
    return Target(native.grid, around, native.grid.points()[around.ravel()])


def anatomical_target(grid: Grid, brain: Volume, coreg: Float, field: Volume | None = None) -> Target:
    """Return the brain voxels of a grid in T1w space, or in the template space that ``field`` maps to the T1w.

    Parameters
    ----------
    grid : Grid
        Output grid.
    brain : Volume (X, Y, Z)
        T1w brain mask.
    coreg : array (4, 4)
        T1w world to BOLD-reference world.
    field : Volume (X, Y, Z, 3), optional
        Template-to-T1w displacement; None: the grid is in T1w space.
    """
    if field is None:
        points = grid.points()
        seen = sample(brain, points) > 0.5
        inside, points = seen.reshape(grid.shape), points[seen]
    else:
        inside, points = onestep.brain_points(grid, field, brain)
    return Target(grid, inside, apply_affine(coreg, points))


def read_distortion(path: Path) -> onestep.Distortion:
    """Read the distortion of a run: shift in voxels, the phase-encoding axis being in its sidecar."""
    direction = str(read_json(sidecar_of(path))["PhaseEncodingDirection"])
    return onestep.Distortion(read_volume(path), "ijk".index(direction[0]))


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """``path`` of the series (T, N); ``mean`` (N,) over time; ``varies``, ``seen`` (N,): in view in every volume."""

    path: Path
    mean: Float
    varies: Array
    seen: Array


def resample(
    frames: Frames,
    affine: Float,
    matrices: Float,
    targets: Mapping[str, Target],
    folder: Path,
    *,
    distortion: onestep.Distortion | None = None,
    progress: Callable[[range], Any] = iter,
) -> dict[str, Sampled]:
    """Read every volume once at all targets and leave one scratch series (T, N) per target.

    Parameters
    ----------
    frames : Frames (X, Y, Z, T)
        Raw or slice-timed series.
    affine : array (4, 4)
        Voxel to world of the series.
    matrices : array (T, 4, 4)
        Motion: BOLD-reference world to volume world.
    targets : mapping of str to Target
        Where the series is read.
    folder : Path
        Scratch folder.
    distortion : Distortion, optional
        EPI distortion of the run.
    progress : callable
        Wraps the range of blocks of volumes (tqdm).
    """
    names, points = list(targets), [one.points for one in targets.values()]
    count = len(matrices)
    total = [np.zeros(len(one)) for one in points]
    varies = [np.zeros(len(one), dtype=bool) for one in points]
    seen = [np.ones(len(one), dtype=bool) for one in points]
    first: list[Array] = []
    paths = [folder / f"{name}.all.npy" for name in names]
    with ExitStack() as stack:
        sinks = [
            stack.enter_context(row_writer(path, count, len(one))) for path, one in zip(paths, points, strict=True)
        ]
        for start in progress(range(0, count, BLOCK)):
            part = matrices[start : start + BLOCK]
            found = onestep.resample_series(
                partial(_volume, frames, start), affine, part, points, distortion=distortion
            )
            first = first or [one.series[0].copy() for one in found]
            for k, one in enumerate(found):
                sinks[k](one.series)
                varies[k] |= (one.series != first[k]).any(axis=0)
                seen[k] &= one.seen
                for row in one.series:  # one after the other, so that no grouping changes the sum
                    total[k] += row
    return {name: Sampled(paths[k], total[k] / count, varies[k], seen[k]) for k, name in enumerate(names)}


def _volume(frames: Frames, start: int, t: int) -> Array:
    return frames.volume(start + t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is left of a target: scratch ``series`` (T, n) of the BOLD mask, scaled; ``mask`` and ``boldref`` images;
    ``share`` of the brain that has signal; ``n_voxels`` n; ``scale`` of the whole run.
    """

    series: Path
    mask: Path
    boldref: Path
    share: float
    n_voxels: int
    scale: np.float32

    @property
    def paths(self) -> dict[str, str]:
        """The files by name."""
        return {"series": str(self.series), "mask": str(self.mask), "boldref": str(self.boldref)}


def finish(
    targets: Mapping[str, Target], found: Mapping[str, Sampled], folder: Path, fraction: float, intensity: float
) -> dict[str, Kept]:
    """Find the BOLD mask of every target, and write its series scaled by the median of the template's brain.

    Raises
    ------
    DataFault
        Next to nothing of the brain was imaged.
    """
    keep = {name: signal_mask(one.mean, one.varies, one.seen, fraction=fraction) for name, one in found.items()}
    scale = np.float32(intensity / np.median(found["template"].mean[keep["template"]]))
    out = {}
    for name, one in targets.items():
        inside, home = image_of(keep[name], one.inside) > 0, name.partition("_")[0] not in ("native", "T1w")
        # Beyond the field of view the spline is mirrored: nothing was measured there.
        mean = np.where(found[name].seen, found[name].mean, 0.0).astype(np.float32) * scale
        mask, boldref = folder / f"{name}_mask.nii.gz", folder / f"{name}_boldref.nii.gz"
        write_volume(mask, inside, one.grid.affine, dtype="uint8", template=home)
        write_volume(boldref, image_of(mean, one.inside), one.grid.affine, template=home)
        series = select(found[name].path, folder / f"{name}.npy", keep[name], scale)
        found[name].path.unlink()
        share, n_voxels = float(keep[name].mean()), int(keep[name].sum())
        out[name] = Kept(series=series, mask=mask, boldref=boldref, share=share, n_voxels=n_voxels, scale=scale)
    return out


def in_view(found: Sampled, target: Path) -> Path:
    """Write the voxels that vary and are in view in every volume, unscaled."""
    select(found.path, target, found.seen & found.varies, np.float32(1))
    found.path.unlink()
    return target


def select(source: Path, target: Path, keep: Array, scale: np.float32) -> Path:
    """Write the kept voxels (T, n) of a scratch series, scaled."""
    with row_writer(target, row_count(source), int(keep.sum())) as append:
        for block in read_rows(source):
            append(block[:, keep] * scale)
    return target
