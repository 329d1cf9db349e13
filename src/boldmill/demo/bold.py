"""One BOLD run: T2*-weighted volumes of a moving head whose parcels carry their signals at each slice's own time.

Volume t, voxel v at world w in slice k: the head point seen is ``M(t)^-1 w`` (head motion), looked up in the subject's
fields through the run's rest pose. Its value is ``field * (tissue * (1 + drift) + signal(parcel, t TR + s_k) +
physiology)``, and Rician noise is added.

Axis legend: I J K voxels (K slices), T volumes, N voxels that ever show the head, P parcels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.demo.anat import Anatomy, brain_centre
from boldmill.demo.cohort import Run, Subject
from boldmill.demo.geometry import Floats, about_centre, apply, centred_affine, rotation, smooth_noise, world_grid
from boldmill.demo.motion import matrices, simulate
from boldmill.demo.parameters import Parameters
from boldmill.demo.physiology import Physiology, draw_physiology
from boldmill.demo.signals import Spectrum
from boldmill.rng import generator

FIELD_OF_VIEW_MM = np.array([188.0, 220.0, 176.0])
SCALE = 1000.0
SIGNAL = 0.02
"""SD of the parcel signal relative to grey matter."""
TSNR = 80.0
NOISE_LEVELS = 2.5
"""Stored integers per SD of thermal noise: quantisation adds 0.7 % to it, and the files compress well."""
RECEIVE = 0.18
DRIFT = (0.010, 0.005)
"""SD over space of the linear and the quadratic drift, relative to the signal."""
PULSATION = {"heart": 0.012, "respiration": 0.008, "slow": 0.008}
"""SD in fluid and vessels, relative to the signal."""
EVERYWHERE = {"respiration": 0.0015, "slow": 0.002}
"""SD in all tissue, relative to the signal."""
BANDS = {"A": 1, "B": 2}
TILT_DEG = {"A": 0.0, "B": 8.0}
SITE_NOISE = {"A": 1.0, "B": 1.1}
FLIPPED = {"A": False, "B": True}
"""Site B stores its voxels right to left (LAS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a run was drawn from.

    ``motion`` (T, 6) and ``centre`` (3,) as in :mod:`boldmill.demo.motion`; ``pose`` 4x4, T1w world -> BOLD world
    of the head at rest; ``labels`` (I, J, K) the parcel of each voxel at rest; ``slice_times`` (K,) in s.
    """

    motion: Floats
    centre: Floats
    pose: Floats
    labels: NDArray[np.int16]
    slice_times: Floats
    spectrum: Spectrum


@dataclass(frozen=True, slots=True, kw_only=True)
class BoldRun:
    """A run as stored: integers (I, J, K, T), their scale, the affine, and the truth."""

    stored: NDArray[np.int16]
    slope: float
    affine: Floats
    truth: Truth


def slice_times(slices: int, tr: float, bands: int) -> Floats:
    """Return the acquisition time of every slice in s, shape (K,), rounded to 0.1 ms: interleaved, even slices first.

    With ``bands`` > 1, slices ``k`` and ``k + slices / bands`` are excited together.
    """
    shots = slices // bands
    order = np.concatenate([np.arange(0, shots, 2), np.arange(1, shots, 2)])
    times = np.empty(shots)
    times[order] = np.arange(shots) * tr / shots
    return np.round(np.tile(times, bands), 4)


def grid(p: Parameters, subject: Subject, centre: Floats) -> tuple[tuple[int, int, int], Floats]:
    """Return shape and affine of a subject's BOLD grid: oblique and right-to-left at site B; an even slice count."""
    count = 2 * np.ceil(FIELD_OF_VIEW_MM / p.bold_mm / 2).astype(int)
    shape = (int(count[0]), int(count[1]), int(count[2]))
    tilt = rotation(np.deg2rad([TILT_DEG[subject.site], 0.0, 0.0]))
    if FLIPPED[subject.site]:
        tilt = tilt @ np.diag([-1.0, 1.0, 1.0])
    return shape, centred_affine(shape, p.bold_mm, np.round(centre, 3), tilt)


def draw_pose(draw: np.random.Generator, centre: Floats) -> Floats:
    """Return the rigid move of the head between the T1w and the run: SD 2 degrees and 3 mm, at most twice that."""
    angles = np.deg2rad(2.0 * np.clip(draw.standard_normal(3), -2, 2))
    return about_centre(rotation(angles), centre, 3.0 * np.clip(draw.standard_normal(3), -2, 2))


def draw_run(p: Parameters, subject: Subject, anatomy: Anatomy, run: Run, spectrum: Spectrum) -> BoldRun:
    """Return one run with its truth."""
    draw = generator("demo", p.seed, "bold", run.stem)
    centre = brain_centre(anatomy)
    pose = draw_pose(draw, centre)
    shape, affine = grid(p, subject, apply(pose, centre))
    truth_centre = np.round(apply(pose, centre), 3)
    motion = simulate(generator("demo", p.seed, "motion", run.stem), p.volumes, p.tr, subject.motion)
    times = slice_times(shape[2], p.tr, BANDS[subject.site])
    to_index = np.linalg.inv(anatomy.affine) @ np.linalg.inv(pose)
    labels = _nearest(anatomy.labels, to_index @ affine, np.indices(shape).reshape(3, -1)).reshape(shape)
    truth = Truth(motion=motion, centre=truth_centre, pose=pose, labels=labels, slice_times=times, spectrum=spectrum)
    physiology = draw_physiology(draw, (p.volumes + 1) * p.tr)
    noise = SITE_NOISE[subject.site] * 0.8 / TSNR
    values = _volumes(p, anatomy, truth, physiology, affine, draw, noise)
    slope = float(np.float32(SCALE * noise / NOISE_LEVELS))
    stored = np.clip(np.rint(values * (SCALE / slope)), 0, 32767).astype(np.int16)
    return BoldRun(stored=stored, slope=slope, affine=affine, truth=truth)


def _nearest(labels: NDArray[np.int16], matrix: Floats, index: NDArray[Any]) -> NDArray[np.int16]:
    """Look labels up at voxel indices (3, N) mapped by a 4x4 matrix; 0 outside."""
    where = np.rint(matrix[:3, :3] @ index + matrix[:3, 3:]).astype(np.intp)
    limits = np.array(labels.shape)[:, None]
    inside = ((where >= 0) & (where < limits)).all(axis=0)
    found = np.zeros(index.shape[1], dtype=np.int16)
    found[inside] = labels[tuple(where[:, inside])]
    return found


def _fields(p: Parameters, anatomy: Anatomy) -> tuple[Floats, Floats, Floats]:
    """Tissue, neural and fluid fields at the resolution of the BOLD (Gaussian point spread of one voxel FWHM)."""
    from scipy import ndimage

    sigma = p.bold_mm / 2.355 / abs(anatomy.affine[0, 0])
    blurred = [
        ndimage.gaussian_filter(field.astype(np.float32), sigma)
        for field in (anatomy.t2s, anatomy.t2s * anatomy.gm * (anatomy.labels > 0), anatomy.t2s * anatomy.fluid)
    ]
    return blurred[0], blurred[1], blurred[2]


def _volumes(
    p: Parameters,
    anatomy: Anatomy,
    truth: Truth,
    physiology: Physiology,
    affine: Floats,
    draw: np.random.Generator,
    noise: float,
) -> NDArray[np.float32]:
    """Draw all volumes, shape (I, J, K, T), grey matter near 0.8."""
    from scipy import ndimage

    shape = (truth.labels.shape[0], truth.labels.shape[1], truth.labels.shape[2])
    fields = _fields(p, anatomy)
    to_index = np.linalg.inv(anatomy.affine) @ np.linalg.inv(truth.pose)
    everywhere = np.indices(shape).reshape(3, -1)
    matrix = to_index @ affine
    rest = ndimage.map_coordinates(fields[0], matrix[:3, :3] @ everywhere + matrix[:3, 3:], order=1).reshape(shape)
    seen = np.flatnonzero(ndimage.maximum_filter(rest > 0.02, size=3))
    index = everywhere[:, seen].astype(np.float32)
    slices = everywhere[2, seen]
    world = world_grid(affine, shape)
    receive = 1 + RECEIVE * np.clip(smooth_noise(draw, shape, affine, world, 60.0), -1.6, 1.6).ravel()[seen]
    slopes = [sd * smooth_noise(draw, shape, affine, world, 40.0).ravel()[seen] for sd in DRIFT]
    moved = matrices(truth.motion, truth.centre)
    when = np.arange(p.volumes)[:, None] * p.tr + truth.slice_times
    table = np.concatenate([np.zeros((*when.shape, 1)), SIGNAL * truth.spectrum.at(when)], axis=-1).astype(np.float32)
    courses = {"heart": physiology.heart(when), "respiration": physiology.respiration(when)}
    courses["slow"] = physiology.slow_course(when)
    in_fluid = np.sum([sd * courses[name] for name, sd in PULSATION.items()], axis=0)
    in_all = np.sum([sd * courses[name] for name, sd in EVERYWHERE.items()], axis=0)
    tau = np.linspace(-1, 1, p.volumes)
    out = np.empty((*shape, p.volumes), dtype=np.float32)
    for volume in range(p.volumes):
        pull = to_index @ np.linalg.inv(moved[volume]) @ affine
        where = (pull[:3, :3].astype(np.float32) @ index) + pull[:3, 3:].astype(np.float32)
        base, grey, wet = (ndimage.map_coordinates(f, where, order=1, output=np.float32) for f in fields)
        parcel = _nearest(anatomy.labels, pull, index)
        drift = slopes[0] * tau[volume] + slopes[1] * (tau[volume] ** 2 - 1 / 3)
        value = base * (1 + drift + in_all[volume][slices])
        value += grey * table[volume][slices, parcel] + wet * in_fluid[volume][slices]
        clean = np.zeros(rest.size, dtype=np.float32)
        clean[seen] = receive * value
        thermal = noise * draw.standard_normal((2, rest.size), np.float32)
        out[..., volume] = np.hypot(clean + thermal[0], thermal[1]).reshape(shape)
    return out
