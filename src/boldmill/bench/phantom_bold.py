"""The phantom's BOLD run: a moving head, signals sampled at each slice's own time, drift and a static receive field.

Volume t shows at world w the head point ``x = M(t)^-1 w`` (rest position), which lies at ``pose^-1 x`` in T1w world.

Axis legend: I J K voxels (K slices), T volumes, N voxels near the head; world in RAS mm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.bench.phantom import Shape, Spec
from boldmill.demo.bold import slice_times
from boldmill.demo.geometry import Floats, about_centre, apply, centred_affine, rotation, smooth_noise, world_grid
from boldmill.rng import generator

POSE_DEG = np.array([4.0, -2.5, 3.0])
POSE_MM = np.array([3.0, -4.0, 4.0])
"""Head between T1w and run: 7 mm on average over the brain."""
LIMIT = np.array([2.0, 2.0, 2.0, *np.deg2rad([2.0, 2.0, 2.0])])
UNITS = np.array([0.45, 0.6, 0.75, *np.deg2rad([0.75, 0.45, 0.4])])
SPIKES = 5
SIGNAL, DRIFT, RECEIVE, TSNR = 0.02, (0.010, 0.005), 0.18, 89.0
SCALE = 1000.0
SINUSOIDS = 60
CYCLE = 40
"""Distinct volumes of a long run: the rest repeat them with other noise (it serves to measure memory and time)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTruth:
    """``pose`` (4, 4) T1w world to BOLD world at rest, ``motion`` (T, 4, 4) rest to volume, ``affine``, ``times``."""

    pose: NDArray[Any]
    motion: NDArray[Any]
    affine: NDArray[Any]
    times: NDArray[Any]


def draw_motion(spec: Spec, centre: Floats) -> Floats:
    """Return matrices (T, 4, 4): a slow walk and five brief spikes, at most 2 mm and 2 degrees on each axis."""
    from scipy import ndimage

    draw = generator("phantom", spec.seed, "motion")
    walk = ndimage.gaussian_filter1d(draw.standard_normal((spec.volumes, 6)).cumsum(axis=0), 4.0, axis=0)
    walk = (walk - walk.mean(axis=0)) / walk.std(axis=0)
    motion = UNITS * (walk + 0.04 * draw.standard_normal((spec.volumes, 6)))
    for onset in 4 + draw.choice((spec.volumes - 8) // 3, size=SPIKES, replace=False) * 3:
        motion[onset : onset + 2] += np.array([[1.0], [0.5]]) * UNITS * 1.6 * draw.choice([-1.0, 1.0], 6)
    motion = np.clip(motion, -LIMIT, LIMIT)
    return np.stack([about_centre(rotation(row[3:]), centre, row[:3]) for row in motion])


def run_truth(spec: Spec, shape: Shape) -> RunTruth:
    """Return pose, motion, grid and slice times of the run."""
    pose = about_centre(rotation(np.deg2rad(POSE_DEG)), shape.centre, POSE_MM)
    centre = apply(pose, shape.centre)
    affine = centred_affine(spec.bold_shape, spec.bold_mm, np.round(centre + np.array([0, 0, 2.0]), 3))
    times = slice_times(spec.bold_shape[2], spec.tr, spec.bands)
    return RunTruth(pose=pose, motion=draw_motion(spec, centre), affine=affine, times=times)


def volumes(spec: Spec, shape: Shape, truth: RunTruth, *, noise: bool = True) -> Iterator[Floats]:
    """Yield the volumes (I, J, K), float32, grey matter near 0.8."""
    from scipy import ndimage

    draw = generator("phantom", spec.seed, "bold")
    sigma = spec.bold_mm / 2.355 / shape.affine[0, 0]
    fields = [
        ndimage.spline_filter(ndimage.gaussian_filter(field, sigma), order=3, output=np.float32, mode="mirror")
        for field in (shape.t2s, shape.grey)
    ]
    to_index = np.linalg.inv(shape.affine) @ np.linalg.inv(truth.pose)
    everywhere = np.indices(spec.bold_shape).reshape(3, -1)
    matrix = to_index @ truth.affine
    rest = ndimage.map_coordinates(shape.t2s, matrix[:3, :3] @ everywhere + matrix[:3, 3:], order=1)
    seen = np.flatnonzero(ndimage.maximum_filter(rest.reshape(spec.bold_shape) > 0.02, size=5))
    index, slices = everywhere[:, seen], everywhere[2, seen]
    world = world_grid(truth.affine, spec.bold_shape)

    def smooth(mm: float) -> Any:
        return smooth_noise(draw, spec.bold_shape, truth.affine, world, mm).ravel()[seen].astype(np.float32)

    receive = 1 + RECEIVE * np.clip(smooth(60.0), -1.6, 1.6)
    slopes = [sd * smooth(40.0) for sd in DRIFT]
    weight = smooth(30.0)
    hertz, phase = draw.uniform(0.01, 0.1, SINUSOIDS), draw.uniform(0, 2 * np.pi, SINUSOIDS)
    sd = 0.8 / TSNR
    distinct = spec.volumes if spec.volumes <= 4 * CYCLE else CYCLE
    drawn: list[Any] = []
    for t in range(spec.volumes):
        if t < distinct:
            pull = to_index @ np.linalg.inv(truth.motion[t]) @ truth.affine
            where = pull[:3, :3] @ index + pull[:3, 3:]
            base, grey = (
                ndimage.map_coordinates(f, where, order=3, prefilter=False, mode="nearest", output=np.float32)
                for f in fields
            )
            when = t * spec.tr + truth.times
            course = np.sqrt(2 / SINUSOIDS) * np.sin(2 * np.pi * hertz * when[:, None] + phase).sum(axis=1)
            tau = 2 * t / (spec.volumes - 1) - 1
            drift = slopes[0] * tau + slopes[1] * (tau**2 - 1 / 3)
            value = np.zeros(rest.size, dtype=np.float32)
            value[seen] = receive * (base * (1 + drift) + SIGNAL * grey * weight * course[slices])
            if distinct < spec.volumes:
                drawn.append(value)
        else:
            value = drawn[t % distinct]
        if noise:
            thermal = sd * draw.standard_normal((2, rest.size), np.float32)
            value = np.hypot(value + thermal[0], thermal[1])
        yield value.reshape(spec.bold_shape)


def write_run(root: Path, spec: Spec, shape: Shape) -> RunTruth:
    """Write the run below ``root/bids``, volume by volume, and return its truth."""
    import gzip

    import nibabel
    from tqdm import tqdm

    from boldmill.atomic import atomic, write_json

    truth = run_truth(spec, shape)
    folder = root / "bids" / "sub-01" / "func"
    header: Any = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*spec.bold_shape, spec.volumes))
    header.set_xyzt_units("mm", "sec")
    header.set_zooms((*[spec.bold_mm] * 3, spec.tr))
    header.set_sform(truth.affine, code=1)
    header.set_qform(truth.affine, code=1)
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with (
        atomic(folder / "sub-01_task-rest_bold.nii.gz") as path,
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as stream,
    ):
        stream.write(bytes(header.binaryblock) + b"\0" * 4)
        for volume in tqdm(volumes(spec, shape, truth), total=spec.volumes, desc="phantom run", unit="volume"):
            stored = np.clip(np.rint(SCALE * volume), 0, 32767).astype(np.int16)
            stream.write(stored.tobytes(order="F"))
    sidecar = {"TaskName": "rest", "RepetitionTime": spec.tr, "SliceTiming": truth.times.tolist()}
    write_json(folder / "sub-01_task-rest_bold.json", {**sidecar, "SliceEncodingDirection": "k"})
    return truth
