"""A phantom subject with known truth at the resolution of the design notes: T1w of 1 mm, BOLD of 3 mm.

The head of the demo cohort (ICBM brain, painted skull, scalp, face and neck) is moved by one stated affine and a
smooth warp, its brain taken from the 1 mm average; the subject's skull is thinner than the template's. Files are a raw
BIDS data set, so that the whole `boldmill preprocess` is measured and not only its parts.

Axis legend: X Y Z voxels, T volumes, N points; world in RAS mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.demo.geometry import Floats, about_centre, apply, centred_affine, rotation, smooth_noise, world_grid
from boldmill.demo.head import Head, build_head, paint
from boldmill.demo.warp import CENTRE, Warp, draw_warp
from boldmill.rng import generator

T1W_FIELD_MM = np.array([192.0, 240.0, 200.0])
VIEW_CENTRE = np.array([0.0, -6.0, -6.0])
FIELDS_MM = 2.0
SMOOTH_MM = 16.0
"""Sigma of the warp: rougher than the demo's, so that its Jacobian spans .5 to 1.6."""
THICKNESS = 0.86
GAMMA = 1.12
BIAS = 0.40
NOISE = 0.022
SCALE = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Resolution of the phantom: voxel sizes (mm), BOLD grid, volumes T, repetition time (s), multiband factor."""

    t1w_mm: float = 1.0
    bold_mm: float = 3.0
    bold_shape: tuple[int, int, int] = (64, 64, 40)
    volumes: int = 100
    tr: float = 2.0
    bands: int = 1
    seed: int = 1


FULL = Spec()
QUICK = Spec(t1w_mm=2.0, bold_mm=4.0, bold_shape=(48, 48, 32), volumes=24)
LONG = Spec(t1w_mm=2.0, bold_mm=2.0, bold_shape=(104, 90, 72), volumes=1200, tr=0.8, bands=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The subject: its ``warp``, and fields on a 2 mm grid (``affine``) of its T1w world.

    ``t2s`` is the T2*-weighted image, ``grey`` that of grey matter alone (it carries the signal); ``brain`` (N, 3) are
    template points inside the brain, over which errors are averaged.
    """

    head: Head
    warp: Warp
    affine: Floats
    t2s: Floats
    grey: Floats
    brain: NDArray[Any]

    @property
    def centre(self) -> NDArray[Any]:
        """Centre of the brain in the T1w world, mm."""
        return apply(self.warp.affine, CENTRE)


def subject_affine() -> Floats:
    """Return the affine of the design notes: rotations 6, -4, 5 degrees, scales 1.06, .95, 1.04, shears, a shift."""
    shear = np.eye(3)
    shear[0, 1], shear[1, 2] = 0.02, -0.03
    linear = rotation(np.deg2rad([6.0, -4.0, 5.0])) @ shear @ np.diag([1.06, 0.95, 1.04])
    return about_centre(linear, CENTRE, np.array([4.0, -6.0, 3.0]))


def build_shape(spec: Spec) -> Shape:
    """Return the phantom subject."""
    from scipy import ndimage

    head = build_head()
    index = np.argwhere(head.mask[::4, ::4, ::4] > 0) * 4
    brain = apply(head.affine, index.astype(float))
    warp = draw_warp(generator("phantom", spec.seed, "shape"), brain, smooth_mm=SMOOTH_MM)
    warp = replace(warp, affine=subject_affine())
    _, t2s = paint(head, thickness=THICKNESS)
    size = np.ceil((T1W_FIELD_MM + 24) / FIELDS_MM).astype(int)
    shape = (int(size[0]), int(size[1]), int(size[2]))
    affine = centred_affine(shape, FIELDS_MM, apply(warp.affine, VIEW_CENTRE))
    where = np.moveaxis(apply(np.linalg.inv(head.affine), warp.to_template(world_grid(affine, shape))), -1, 0)
    pulled = [
        np.asarray(ndimage.map_coordinates(field, where, order=1, mode="nearest"), dtype=np.float32)
        for field in (t2s, t2s * head.gm)
    ]
    return Shape(head=head, warp=warp, affine=affine, t2s=pulled[0], grey=pulled[1], brain=brain)


def draw_t1w(spec: Spec, shape: Shape) -> tuple[NDArray[np.int16], NDArray[np.bool_], Floats]:
    """Return the T1w as stored, the true brain mask and their affine: bias of +-40 %, gamma, Rician noise."""
    from nilearn import datasets
    from scipy import ndimage

    head = shape.head
    image = datasets.load_mni152_template(resolution=1)
    fine = np.asarray(image.dataobj, dtype=np.float32)
    bare = replace(head, mask=np.zeros_like(head.mask))
    outside = paint(bare, thickness=THICKNESS)[0]
    size = np.round(T1W_FIELD_MM / spec.t1w_mm).astype(int)
    grid = (int(size[0]), int(size[1]), int(size[2]))
    affine = centred_affine(grid, spec.t1w_mm, apply(shape.warp.affine, VIEW_CENTRE))
    if spec.t1w_mm > 1:
        fine = ndimage.gaussian_filter(fine, 0.35 * spec.t1w_mm)
    clean, inside = np.empty(grid, np.float32), np.empty(grid, np.float32)

    def slab(low: int, high: int) -> None:
        part = affine.copy()
        part[:3, 3] = affine[:3, :3] @ [low, 0, 0] + affine[:3, 3]
        where = shape.warp.to_template(world_grid(part, (high - low, *grid[1:])))
        coarse = np.moveaxis(apply(np.linalg.inv(head.affine), where), -1, 0)
        dense = np.moveaxis(apply(np.linalg.inv(image.affine), where), -1, 0)
        mask = ndimage.map_coordinates(head.mask, coarse, order=1, mode="nearest")
        skull = ndimage.map_coordinates(outside, coarse, order=1, mode="nearest")
        brain = 0.9 * (np.clip(ndimage.map_coordinates(fine, dense, order=1), 0, None) / 0.9) ** GAMMA
        inside[low:high], clean[low:high] = mask, skull + mask * (brain - skull)

    _slabs(grid[0], slab)
    truth = inside > 0.5
    draw = generator("phantom", spec.seed, "t1w")
    bias = _bias(draw, affine, grid, truth)
    noise = NOISE * draw.standard_normal((2, *grid), np.float32)
    noisy = np.hypot(clean * bias + noise[0], noise[1])
    return np.clip(np.rint(SCALE * noisy), 0, 32767).astype(np.int16), truth, affine


def _slabs(count: int, work: Callable[[int, int], None], thick: int = 24) -> None:
    for low in range(0, count, thick):
        work(low, min(low + thick, count))


def _bias(draw: np.random.Generator, affine: Floats, grid: tuple[int, int, int], inside: NDArray[np.bool_]) -> Any:
    """Smooth multiplicative field (X, Y, Z) whose 98th percentile in the brain is ``BIAS`` away from 1."""
    from scipy import ndimage

    step = 4
    coarse = affine @ np.diag([step, step, step, 1.0])
    shape = tuple(-(-n // step) + 1 for n in grid)
    field = smooth_noise(draw, shape, coarse, world_grid(coarse, shape), 55.0).astype(np.float32)
    inner = inside[::step, ::step, ::step]
    known = field[tuple(slice(n) for n in inner.shape)][inner]
    field = 1 + BIAS * np.clip((field - known.mean()) / np.percentile(np.abs(known - known.mean()), 98), -1.4, 1.4)
    return ndimage.affine_transform(field, np.full(3, 1 / step), output_shape=grid, order=1).astype(np.float32)


def write_dataset(root: Path, spec: Spec) -> Shape:
    """Write the template and the T1w below ``root`` (``template/``, ``bids/``) and return the subject's shape."""
    from boldmill.atomic import write_json, write_text
    from boldmill.demo.geometry import save_nifti
    from boldmill.demo.template import write_template

    shape = build_shape(spec)
    write_template(root / "template", shape.head)
    t1w, mask, affine = draw_t1w(spec, shape)
    stem = root / "bids" / "sub-01" / "anat" / "sub-01_T1w"
    save_nifti(stem.with_name("sub-01_T1w.nii.gz"), t1w, affine)
    write_json(stem.with_name("sub-01_T1w.json"), {"SkullStripped": False})
    save_nifti(root / "truth" / "brain_mask.nii.gz", mask.astype(np.uint8), affine)
    description = {"Name": "boldmill phantom", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"}
    write_json(root / "bids" / "dataset_description.json", description)
    write_text(root / "bids" / "participants.tsv", "participant_id\tsite\nsub-01\tphantom\n")
    return shape


__all__ = ["FULL", "LONG", "QUICK", "Shape", "Spec", "build_shape", "draw_t1w", "write_dataset"]
