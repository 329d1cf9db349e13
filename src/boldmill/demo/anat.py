"""One subject's T1w image, and the fields its BOLD runs are drawn from, on a grid in the subject's own world.

Axis legend: X Y Z of the T1w grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.demo.cohort import Subject
from boldmill.demo.geometry import Floats, apply, centred_affine, smooth_noise, world_grid
from boldmill.demo.head import Head, paint
from boldmill.demo.parameters import Parameters
from boldmill.demo.warp import CENTRE, Warp, draw_warp
from boldmill.rng import generator

FIELD_OF_VIEW_MM = np.array([200.0, 252.0, 236.0])
VIEW_CENTRE = np.array([0.0, -8.0, -12.0])
FIELDS_MM = 2.0
BIAS = 0.30
SCALE = 900.0
NOISE = {"A": 0.022, "B": 0.030}
"""SD of the complex noise relative to white matter, per site."""
GAMMA = {"A": 1.0, "B": 1.15}
STORED = {"A": "RAS", "B": "PSR"}
"""Voxel order in the file: site B stores sagittal slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """One subject's shape and fields on a 2 mm grid of its T1w world.

    ``t2s`` is the T2*-weighted intensity at the resolution of the grid, ``neural`` the grey-matter weight of the parcel
    signal, ``fluid`` the weight of physiological noise (fluid and vessels), ``labels`` the parcel of each voxel.
    """

    warp: Warp
    affine: Floats
    t1w: Floats
    t2s: Floats
    gm: Floats
    brain: Floats
    fluid: Floats
    labels: NDArray[np.int16]


def brain_points(head: Head, step: int = 4) -> Floats:
    """Return every ``step``-th brain voxel of the template as world points (N, 3)."""
    index = np.argwhere(head.mask[::step, ::step, ::step] > 0) * step
    return apply(head.affine, index.astype(float))


def build_anatomy(p: Parameters, head: Head, subject: Subject) -> Anatomy:
    """Return a subject's anatomy: its own shape, skull thickness and site contrast."""
    from scipy import ndimage

    draw = generator("demo", p.seed, "anatomy", subject.label)
    warp = draw_warp(draw, brain_points(head))
    t1w, t2s = paint(head, thickness=float(draw.uniform(0.8, 1.15)), brain_gamma=GAMMA[subject.site])
    size = np.ceil(FIELD_OF_VIEW_MM / FIELDS_MM).astype(int)
    shape = (int(size[0]), int(size[1]), int(size[2]))
    affine = centred_affine(shape, FIELDS_MM, apply(warp.affine, VIEW_CENTRE))
    where = warp.to_template(world_grid(affine, shape)).astype(np.float32)
    index = np.moveaxis(apply(np.linalg.inv(head.affine).astype(np.float32), where), -1, 0)

    def pull(field: Floats, order: int = 1) -> Floats:
        drawn = ndimage.map_coordinates(field.astype(np.float32), index, order=order, mode="nearest")
        return np.asarray(drawn, dtype=np.float32)

    nearest = np.rint(index).astype(np.intp)
    for axis, n in enumerate(head.shape):
        np.clip(nearest[axis], 0, n - 1, out=nearest[axis])
    return Anatomy(
        warp=warp,
        affine=affine,
        t1w=np.clip(pull(t1w, order=3), 0, None),
        t2s=pull(t2s),
        gm=pull(head.gm),
        brain=pull(head.mask),
        fluid=pull(np.clip(0.85 * head.csf + head.vessels, 0, 1)),
        labels=head.labels[tuple(nearest)],
    )


def t1w_image(p: Parameters, subject: Subject, anatomy: Anatomy) -> tuple[NDArray[np.int16], Floats]:
    """Return the T1w image as stored and its affine: bias field of +-30 %, Rician noise, the site's voxel order."""
    import nibabel as nib
    from scipy import ndimage

    draw = generator("demo", p.seed, "t1w", subject.label)
    image, affine = anatomy.t1w, anatomy.affine
    if p.t1w_mm != FIELDS_MM:
        image, affine = _regrid(image, affine, p.t1w_mm)
    shape = (image.shape[0], image.shape[1], image.shape[2])
    world = world_grid(affine, shape)
    bias = smooth_noise(draw, shape, affine, world, 55.0)
    inside = ndimage.zoom(anatomy.brain, np.array(shape) / anatomy.brain.shape, order=0) > 0.5
    bias = bias - bias[inside].mean()
    bias = 1 + BIAS * np.clip(bias / np.percentile(np.abs(bias[inside]), 98), -1.4, 1.4)
    noise = NOISE[subject.site] * min(1.0, (2.0 / p.t1w_mm) ** 1.5) * draw.standard_normal((2, *shape), np.float32)
    noisy = np.hypot(image * bias + noise[0], noise[1])
    stored = np.clip(np.rint(SCALE * noisy), 0, 32767).astype(np.int16)
    target = nib.orientations.axcodes2ornt(STORED[subject.site])
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), target)
    turned: Any = nib.orientations.apply_orientation(stored, turn)
    return np.ascontiguousarray(turned), np.asarray(affine @ nib.orientations.inv_ornt_aff(turn, shape))


def _regrid(image: Floats, affine: Floats, voxel_mm: float) -> tuple[Floats, Floats]:
    """Resample to another isotropic voxel size over the same field of view, averaging where voxels grow."""
    from scipy import ndimage

    ratio = voxel_mm / FIELDS_MM
    if ratio > 1:
        image = ndimage.gaussian_filter(image, 0.35 * ratio)
    size = np.ceil(np.array(image.shape) / ratio).astype(int)
    shape = (int(size[0]), int(size[1]), int(size[2]))
    middle = apply(affine, (np.array(image.shape) - 1) / 2)
    target = centred_affine(shape, voxel_mm, middle)
    index = np.moveaxis(
        apply(np.linalg.inv(affine) @ target, np.moveaxis(np.indices(shape).astype(float), 0, -1)), -1, 0
    )
    return np.asarray(ndimage.map_coordinates(image, index, order=1, mode="nearest"), dtype=np.float32), target


def brain_centre(anatomy: Anatomy) -> Floats:
    """Return the centre of the subject's brain in its T1w world, mm."""
    return apply(anatomy.warp.affine, CENTRE)
